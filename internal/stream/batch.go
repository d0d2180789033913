package stream

import (
	"fmt"
	"strconv"
	"time"

	"jobprogress/internal/hub"
	"jobprogress/internal/sse"
)

// text is what is written at once: a chunk of HTTP/1.1 (RFC 9112, section 7.1), of which sinks that are none take the inside.
type text struct {
	chunk []byte
	head  int // the length of its size line
}

const (
	sizeLine  = "ffffffff\r\n" // the longest
	lineEnd   = "\r\n"
	lastChunk = "0\r\n\r\n"
)

// beginText begins a text in the memory of an earlier one. What it says is appended, then endText makes it one.
func beginText(b []byte) []byte {
	if cap(b) > keepBuffer {
		b = nil
	}
	return append(b[:0], sizeLine...)
}

// keepBuffer is the size up to which a buffer is kept for the next text: a first batch may have hundreds of items.
const keepBuffer = 64 << 10

func endText(b []byte) text {
	size := strconv.FormatInt(int64(len(b)-len(sizeLine)), 16)
	at := len(sizeLine) - len(lineEnd) - len(size)
	copy(b[at:], size)
	return text{chunk: append(b, lineEnd...)[at:], head: len(size) + len(lineEnd)}
}

// bytes is what the text says.
func (t text) bytes() []byte {
	if t.chunk == nil {
		return nil
	}
	return t.chunk[t.head : len(t.chunk)-len(lineEnd)]
}

func (t text) empty() bool { return len(t.bytes()) == 0 }

var pingText = endText(sse.AppendPing(beginText(nil)))

// appendHeartbeat appends a sign of life that a page can see, which says how long it may be until the next.
func appendHeartbeat(b []byte, interval time.Duration) []byte {
	return sse.AppendNamed(b, "heartbeat", fmt.Sprintf(`{"interval":%d}`, interval.Milliseconds()))
}

func appendBus(b []byte, live bool) []byte {
	if live {
		return sse.AppendNamed(b, "bus", `{"state":"recovered"}`)
	}
	return sse.AppendNamed(b, "bus", `{"state":"degraded"}`)
}

// batch is what viewers are sent next.
type batch struct {
	text   text
	shared bool // by all who stand where it begins
	frames int
	at     []time.Time // when the changes in it were notified

	sent, news int // how many viewers were sent it, and how many of them as something new

	// Of one job:
	watch    *watch
	from, to hub.Cursor
	account  string
	end      end
}

// batches are those of this turn, so that viewers at one place share the work and the bytes.
type batches struct {
	recent [4]batch // of one job
	next   int
	many   batch // the last of a stream of many jobs, which nobody shares
	bytes  int   // written in this turn
}

// of returns what viewers of a topic are sent who stand there.
func (c *batches) of(l *loop, w *watch, from hub.Cursor) *batch {
	for i := range c.recent {
		if b := &c.recent[i]; b.watch == w && b.from == from {
			return b
		}
	}
	b := &c.recent[c.next]
	c.next = (c.next + 1) % len(c.recent)
	l.set.metrics.wrote(b)
	changes := w.subscriber.Changes(from)
	*b = batch{shared: true, frames: len(changes.Frames), watch: w, from: from, to: changes.Cursor, account: changes.Account}
	switch changes.End {
	case hub.Final:
		b.end = endFinal
	case hub.Gone:
		b.end = endGone
	}
	if len(changes.Frames) == 0 {
		return b
	}
	size := len(sizeLine) + len(lineEnd)
	for _, f := range changes.Frames {
		size += len("id: \n") + len(f.ID) + len(f.Data)
	}
	out := beginText(make([]byte, 0, size))
	for _, f := range changes.Frames {
		out = append(sse.AppendID(out, f.ID), f.Data...)
		if !f.At.IsZero() {
			b.at = append(b.at, f.At)
		}
	}
	b.text = endText(out)
	return b
}

// own is the batch of a stream of many jobs.
func (c *batches) own(l *loop, b batch) *batch {
	l.set.metrics.wrote(&c.many)
	c.many = b
	return &c.many
}

// clear ends the turn.
func (c *batches) clear(l *loop) {
	l.set.metrics.wrote(&c.many)
	c.many = batch{}
	for i := range c.recent {
		l.set.metrics.wrote(&c.recent[i])
		c.recent[i] = batch{}
	}
	if c.bytes > 0 {
		l.set.metrics.bytes.Add(float64(c.bytes))
		c.bytes = 0
	}
}
