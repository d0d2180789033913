package stream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// handler is the sink of a stream whose connection stays with net/http: the goroutine of its request writes.
type handler struct {
	loop    *loop
	stream  *stream
	out     chan []byte
	closed  bool         // out; belongs to the loop
	unsent  atomic.Int32 // texts that were not written yet
	waiting atomic.Bool  // the loop has found that there are some, and wants to know when there are none
}

// mostUnsent is how many texts may wait: the first batch and the comment after it.
const mostUnsent = 2

// serveHandler serves a stream until it ends.
func serveHandler(w http.ResponseWriter, r *http.Request, l *loop, s *stream, expires time.Time) {
	h := &handler{loop: l, stream: s, out: make(chan []byte, mostUnsent)}
	if !l.do(func() { l.open(s, expires, h) }) {
		l.abandon(s, endDrained)
		return
	}
	defer l.release(s)
	if why := h.copy(r.Context(), w); why != 0 {
		l.do(func() { l.end(s, why, false) })
		for range h.out { // until the loop has ended it
		}
	}
}

// copy writes what the stream says. It returns why that is over; 0 is that the stream has ended.
func (h *handler) copy(ctx context.Context, w http.ResponseWriter) end {
	control := http.NewResponseController(w)
	timeout := h.loop.set.config.WriteTimeout
	for {
		select {
		case b, ok := <-h.out:
			if !ok {
				control.SetWriteDeadline(time.Now().Add(timeout)) // for the end of the answer
				return 0
			}
			for piece := range slices.Chunk(b, pieceSize) {
				if why := write(w, control, piece, timeout); why != 0 {
					return why
				}
			}
			if h.unsent.Add(-1) == 0 && h.waiting.CompareAndSwap(true, false) {
				h.loop.do(func() { h.loop.advance(h.stream) })
			}
		case <-ctx.Done():
			return endClient
		}
	}
}

// pieceSize is how much a viewer must take within the write timeout, in bytes.
const pieceSize = 64 << 10

// write writes before the timeout has passed. It returns why the stream ends, if it does.
func write(w http.ResponseWriter, control *http.ResponseController, b []byte, timeout time.Duration) end {
	deadline := time.Now().Add(timeout)
	err := control.SetWriteDeadline(deadline)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = control.Flush()
	}
	if err == nil {
		err = control.SetWriteDeadline(time.Time{}) // HTTP/2 ends a silent stream when one passes
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, os.ErrDeadlineExceeded), !time.Now().Before(deadline): // HTTP/2 says only that the stream is closed
		return endStalled
	}
	return endClient
}

func (h *handler) full() bool {
	if h.unsent.Load() == 0 {
		return false
	}
	h.waiting.Store(true)
	return h.unsent.Load() > 0 || !h.waiting.CompareAndSwap(true, false)
}

func (h *handler) write(t text, shared bool) error {
	b := t.bytes()
	if !shared {
		b = bytes.Clone(b)
	}
	h.unsent.Add(1)
	h.out <- b // there is room: nobody writes to a full sink but the comment after the first batch
	return nil
}

func (h *handler) finish() {
	if !h.closed {
		h.closed = true
		close(h.out)
	}
}

func (h *handler) moves() bool { return false } // each of its writes has a deadline

func (h *handler) cut() { h.finish() } // a write that hangs has a deadline
