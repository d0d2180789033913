package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"jobprogress/internal/hub"
	"jobprogress/internal/sse"
)

// writer gathers what a stream has to say and writes it at once.
type writer struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration // of a write
	metrics metrics

	buffer []byte
	fresh  []hub.Frame // the frames in the buffer that tell of a change
	count  int         // all frames in the buffer
}

// setDeadline sets the write deadline of what comes next, and returns it.
func (w *writer) setDeadline() (deadline time.Time, err error) {
	deadline = time.Now().Add(w.timeout)
	return deadline, w.rc.SetWriteDeadline(deadline)
}

// keepBuffer is the size up to which a stream keeps its buffer between writes: a few frames. A first batch with
// hundreds of items must not stay in memory for each viewer.
const keepBuffer = 4096

func (w *writer) retry(wait time.Duration) { w.buffer = sse.AppendRetry(w.buffer, wait) }

// frames gathers frames. What a viewer missed is no measure of how fast changes are sent.
func (w *writer) frames(frames []hub.Frame, missed bool) {
	for _, f := range frames {
		if f.ID != "" {
			w.buffer = sse.AppendID(w.buffer, f.ID)
		}
		w.buffer = append(w.buffer, f.Data...)
	}
	w.count = len(frames)
	if !missed {
		w.fresh = frames
	}
}

func (w *writer) ping() { w.buffer = sse.AppendPing(w.buffer) }

// heartbeat is a sign of life that a page can hear, and says how long it may be until the next.
func (w *writer) heartbeat(interval time.Duration) {
	w.buffer = sse.AppendNamed(w.buffer, "heartbeat", fmt.Sprintf(`{"interval":%d}`, interval.Milliseconds()))
}

func (w *writer) bus(live bool) {
	state := `{"state":"degraded"}`
	if live {
		state = `{"state":"recovered"}`
	}
	w.buffer = sse.AppendNamed(w.buffer, "bus", state)
}

// errStalled is that a write took longer than its timeout.
var errStalled = errors.New("viewer does not read")

// flush writes the buffer, if there is anything in it, and reports whether there was.
func (w *writer) flush() (wrote bool, err error) {
	if len(w.buffer) == 0 {
		return false, nil
	}
	// The deadline is for this write only: HTTP/2 ends a silent stream when one passes.
	deadline, err := w.setDeadline()
	if err != nil {
		return false, err
	}
	n, err := w.w.Write(w.buffer)
	if err == nil {
		err = w.rc.Flush()
	}
	switch {
	case err == nil:
	case time.Now().Before(deadline):
		return false, err
	default: // whatever the error: HTTP/2 says only that the stream is closed
		return false, errStalled
	}
	if err := w.rc.SetWriteDeadline(time.Time{}); err != nil {
		return false, err
	}
	w.metrics.wrote(n, w.count, w.fresh)
	w.count, w.fresh = 0, nil
	if w.buffer = w.buffer[:0]; cap(w.buffer) > keepBuffer {
		w.buffer = nil
	}
	return true, nil
}
