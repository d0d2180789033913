package stream

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/sse"
)

// stream is one viewer. It belongs to its loop. Times are since the loop began.
type stream struct {
	sink    sink
	source  Source
	account string // the viewer's
	recheck func(context.Context) (auth.Viewer, error)

	dueTick    int64  // when the wheel has it; 0 is not at all
	openedTick uint32 // when it began
	index      int32  // in loop.streams

	wroteAt   time.Duration // the last write
	cutAt     time.Duration // when the viewer is cut off if it has not taken what was written
	endAt     time.Duration
	recheckAt time.Duration
	endWhy    end

	anyone bool // authentication is off
	named  bool // wants named events: heartbeat and bus
	live   bool // what it was sent of the bus; silence means live
	begun  bool // it was sent its first batch
	closed bool // it ended, and only the end of its answer may be on the way
	placed bool // it takes one of the places for streams
}

// owns reports whether the viewer may see the jobs of an account.
func (s *stream) owns(account string) bool {
	return auth.Viewer{Account: s.account, Anyone: s.anyone}.Owns(account)
}

func (s *stream) place() *int32 { return &s.index }

// never is later than anything.
const never = time.Duration(math.MaxInt64)

// endBy has the stream end at that time, unless it ends earlier.
func (s *stream) endBy(at time.Duration, why end) {
	if at < s.endAt {
		s.endAt, s.endWhy = at, why
	}
}

// end is why a stream ended; 0 is that it goes on.
type end uint8

const (
	endFinal    end = iota + 1 // the job completed or failed
	endGone                    // the job was deleted
	endNotOwner                // the job is another account's now
	endExpired                 // the credentials ended
	endAged                    // it was open for as long as streams may be
	endRevoked                 // the credentials are not valid any more
	endDrained                 // the server stops
	endClient                  // the viewer went away, or the kernel gave it up
	endStalled                 // the viewer does not read
)

// ends are the names that metrics have for them.
var ends = [...]string{endFinal: "final", endGone: "gone", endNotOwner: "not_owner", endExpired: "expired", endAged: "aged",
	endRevoked: "revoked", endDrained: "drained", endClient: "client", endStalled: "stalled"}

// Source is what a stream shows.
type Source interface {
	// open is called once, on the loop, before next.
	open(l *loop, s *stream)
	// next returns what the viewer has not seen, and why the stream ends with it, if it does. The batch is valid until the
	// next call for any stream of the loop.
	next(l *loop, s *stream) (*batch, end)
	// close ends its subscriptions, open or not.
	close(l *loop)
}

// sink is where the bytes of a stream go. Its methods do not block; all but those that it calls itself belong to the loop.
type sink interface {
	// full reports whether the viewer has yet to take what was written. When it has, advance is called.
	full() bool
	// moves reports whether the viewer has taken something since the last time, of what it has yet to take.
	moves() bool
	// write writes the text. The sink keeps it if it is shared, and else copies what it needs longer. A full sink takes one
	// more: the comment after the first batch.
	write(t text, shared bool) error
	// finish ends the answer after what was written, and cut now. Either releases the stream in the end.
	finish()
	cut()
}

// release gives the place of a stream back.
func (l *loop) release(s *stream) {
	if s.placed {
		s.placed = false
		l.set.config.Release(s.account)
	}
}

// How long a viewer waits before it comes back: after a cut, when all do so at once, and after an end of the server's own
// choice.
const (
	cutLeast, cutSpread = time.Second, 2 * time.Second
	endLeast, endSpread = 100 * time.Millisecond, 400 * time.Millisecond
)

// leastSilence is after how long without a frame a ping may leave, and silence when it does. Both are less than the interval,
// because some proxies cut what is silent for exactly so long.
func leastSilence(interval time.Duration) time.Duration { return min(interval*8/10, interval-tick) }

func silence(interval time.Duration) time.Duration {
	return leastSilence(interval) + rand.N(max(interval/10-tick, 1))
}

// advance sends a viewer what it has not seen, unless it has yet to take what it was sent before.
func (l *loop) advance(s *stream) {
	if s.closed || s.sink.full() {
		return
	}
	if l.now >= s.endAt {
		l.sayEnd(s, s.endWhy)
		return
	}
	b, why := s.source.next(l, s)
	if why == endNotOwner {
		l.end(s, why, true)
		return
	}
	t, shared := b.text, b.shared
	first := !s.begun
	if first || s.named && s.live != l.status.Live {
		own := beginText(l.text)
		if first {
			own = sse.AppendRetry(own, cutLeast+rand.N(cutSpread))
			if s.named {
				own = appendHeartbeat(own, l.set.config.PingInterval)
			}
		}
		if s.named && s.live != l.status.Live {
			own = appendBus(own, l.status.Live)
			s.live = l.status.Live
		}
		own = append(own, b.text.bytes()...) // after all else: nothing follows a final frame
		l.text = own
		t, shared = endText(own), false
	}
	s.begun = true
	if !l.write(s, t, shared) {
		return
	}
	b.sent++
	if !first {
		b.news++
	}
	switch {
	case why != 0:
		l.end(s, why, true)
	case first:
		// In a write of its own: some scanners hold back what comes first until there is more.
		l.write(s, pingText, true)
	}
}

// write writes a text, if there is anything in it. It reports false when the stream has ended with that.
func (l *loop) write(s *stream, t text, shared bool) bool {
	if t.empty() {
		return true
	}
	if err := s.sink.write(t, shared); err != nil {
		l.end(s, endClient, false)
		return false
	}
	l.batches.bytes += len(t.bytes())
	s.wroteAt = l.now
	return true
}

// lookAt does what a stream is due for.
func (l *loop) lookAt(s *stream) {
	interval := l.set.config.PingInterval
	switch {
	case s.closed && l.now < s.cutAt:
		l.wheel.add(s, s.cutAt)
		return
	case s.closed:
		s.sink.cut()
		return
	case l.now >= s.cutAt && s.sink.moves():
		s.cutAt = l.now + l.set.config.WriteTimeout
	case l.now >= s.cutAt:
		l.end(s, endStalled, false)
		return
	case s.sink.full():
	case l.now >= s.endAt:
		l.sayEnd(s, s.endWhy)
		return
	case l.now >= s.wroteAt+leastSilence(interval):
		ping := sse.AppendPing(beginText(l.text))
		if s.named {
			ping = appendHeartbeat(ping, interval)
		}
		l.text = ping
		if !l.write(s, endText(ping), false) {
			return
		}
	}
	if l.now >= s.recheckAt {
		l.recheck(s)
	}
	l.lookAgain(s)
}

// lookAgain has the stream looked at when it is due next.
func (l *loop) lookAgain(s *stream) {
	l.wheel.add(s, min(s.wroteAt+silence(l.set.config.PingInterval), s.endAt, s.recheckAt, s.cutAt))
}

// recheck finds out, somewhere else, whether the credentials that opened the stream would open it now. What can't be found out
// now does not end it.
func (l *loop) recheck(s *stream) {
	s.recheckAt = never
	recheck := s.recheck
	l.rechecks.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, recheckTimeout)
		defer cancel()
		viewer, err := recheck(ctx)
		revoked := errors.Is(err, auth.ErrInvalid) || errors.Is(err, auth.ErrMissing) || err == nil && viewer.Account != s.account
		l.do(func() {
			switch {
			case s.closed:
			case revoked:
				s.endBy(l.now, endRevoked)
				l.lookAt(s)
			default:
				s.recheckAt = l.now + jitter(l.set.config.RecheckInterval)
				l.lookAgain(s)
			}
		})
	})
}

// recheckTimeout bounds a recheck.
const recheckTimeout = 10 * time.Second

// sayEnd ends a stream whose job goes on: its viewer is to come back at once.
func (l *loop) sayEnd(s *stream, why end) {
	l.text = sse.AppendRetry(beginText(l.text), endLeast+rand.N(endSpread))
	if l.write(s, endText(l.text), false) {
		l.end(s, why, true)
	}
}

// end ends a stream: cleanly, or at once.
func (l *loop) end(s *stream, why end, clean bool) {
	if s.closed {
		return
	}
	s.closed = true
	l.set.metrics.end(why)
	l.set.metrics.duration.Observe((l.now - time.Duration(s.openedTick)*tick).Seconds())
	l.streams.remove(s)
	s.source.close(l)
	s.source, s.recheck = nil, nil // the wheel may hold the stream for a while
	if clean {
		s.sink.finish()
	} else {
		s.sink.cut()
	}
}
