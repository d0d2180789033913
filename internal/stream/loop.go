package stream

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// loop owns a part of the streams. What it has to do it does in turns, each short: the inbox, then a slice of the viewers
// of each watch that has changed, then what is due.
type loop struct {
	set   *Set
	inbox inbox

	// All that follows belongs to run.
	ctx       context.Context
	began     time.Time
	now       time.Duration // since began, at the beginning of this turn
	poller    *poller       // reports on sockets; nil while there was none
	streams   ring[*stream]
	watches   map[job.ID]*watch
	pending   []sweeper // those that have viewers left to look at
	wheel     wheel
	status    hub.Status // of the bus
	draining  bool
	spread    time.Duration // over which streams end when draining
	batches   batches
	text      []byte // of a stream that has something of its own to say
	frames    []byte // of a stream of many jobs
	rechecks  sync.WaitGroup
	discarded [16 << 10]byte // what viewers send
}

// sliceSize is how many viewers of a watch are looked at before it is the turn of others. A write takes some microseconds.
const sliceSize = 64

// sweeper looks at viewers one after another. sweep looks at so many, and reports whether it is through.
type sweeper interface{ sweep(most int) (done bool) }

func newLoop(s *Set) *loop {
	return &loop{set: s, inbox: inbox{token: make(chan struct{}, 1)}, began: time.Now(), watches: make(map[job.ID]*watch)}
}

// inbox is what others have for a loop.
type inbox struct {
	token chan struct{} // there while there is something

	mu      sync.Mutex
	woken   []woken
	calls   []func()
	stopped bool
}

// woken is something that has changed.
type woken interface{ changed() }

func (i *inbox) wake(w woken) {
	i.mu.Lock()
	i.woken = append(i.woken, w)
	i.mu.Unlock()
	i.signal()
}

func (i *inbox) signal() {
	select {
	case i.token <- struct{}{}:
	default:
	}
}

// do has the loop call f, soon. It reports false, and drops f, when the loop has stopped.
func (l *loop) do(f func()) bool {
	l.inbox.mu.Lock()
	stopped := l.inbox.stopped
	if !stopped {
		l.inbox.calls = append(l.inbox.calls, f)
	}
	l.inbox.mu.Unlock()
	l.inbox.signal()
	return !stopped
}

// run serves the streams until ctx ends.
func (l *loop) run(ctx context.Context) error {
	l.ctx = ctx
	timer := time.NewTimer(0)
	defer timer.Stop()
	always := make(chan struct{})
	close(always)
	var statusChanged <-chan struct{}
	l.status, statusChanged = l.set.config.Hub.Status()
	for {
		var busy <-chan struct{}
		if len(l.pending) > 0 {
			busy = always
		} else if next, ok := l.wheel.next(); ok {
			timer.Reset(time.Until(l.began.Add(next)))
		}
		select {
		case <-l.inbox.token:
		case <-busy:
		case <-timer.C:
		case <-statusChanged:
			l.status, statusChanged = l.set.config.Hub.Status()
			if l.streams.restart() {
				l.pending = append(l.pending, l)
			}
		case <-ctx.Done():
			l.stop()
			return nil
		}
		l.turn()
	}
}

func (l *loop) turn() {
	l.now = time.Since(l.began)
	l.inbox.mu.Lock()
	woken, calls := l.inbox.woken, l.inbox.calls
	l.inbox.woken, l.inbox.calls = nil, nil
	l.inbox.mu.Unlock()
	// Before all else: as long as what has changed counts as queued, another change does not wake the loop.
	for _, w := range woken {
		w.changed()
	}
	for _, call := range calls {
		call()
	}
	for range len(l.pending) {
		first := l.pending[0]
		l.pending = l.pending[1:]
		if !first.sweep(sliceSize) {
			l.pending = append(l.pending, first)
		}
	}
	if len(l.pending) == 0 {
		l.pending = nil
	}
	l.wheel.due(l.now, l.lookAt)
	l.batches.clear(l)
}

// sweep looks at all streams: the bus is degraded, or live again.
func (l *loop) sweep(most int) (done bool) { return l.streams.sweep(most, l.advance) }

// open begins a stream, whose credentials end at that time, if they do.
func (l *loop) open(s *stream, expires time.Time, out sink) {
	s.sink = out
	s.openedTick = uint32(l.now / tick)
	s.cutAt, s.recheckAt, s.endAt = never, never, never
	if !expires.IsZero() {
		s.endBy(l.now+time.Until(expires), endExpired) // clocks may be set while the loop runs
	}
	if age := l.set.config.MaxAge; age > 0 {
		s.endBy(l.now+jitter(age), endAged)
	}
	if l.draining {
		s.endBy(l.now+rand.N(l.spread+1), endDrained)
	}
	if s.recheck != nil {
		s.recheckAt = l.now + jitter(l.set.config.RecheckInterval)
	}
	l.streams.add(s)
	s.source.open(l, s)
	l.advance(s)
	if !s.closed {
		l.lookAgain(s)
	}
}

// drain has all streams end, each at a moment of its own.
func (l *loop) drain(spread time.Duration) {
	l.draining, l.spread = true, spread
	for _, s := range l.streams.entries {
		s.endBy(l.now+rand.N(spread+1), endDrained)
		l.lookAgain(s)
	}
}

// stop cuts what is still open.
func (l *loop) stop() {
	l.inbox.mu.Lock()
	l.inbox.stopped = true
	calls := l.inbox.calls
	l.inbox.mu.Unlock()
	for _, call := range calls {
		call() // it may open a stream, which must be closed
	}
	for len(l.streams.entries) > 0 {
		l.end(l.streams.entries[0], endDrained, false)
	}
	if l.poller != nil {
		l.poller.close()
	}
	l.rechecks.Wait()
}
