package hub

import (
	"context"
	"time"
)

// read is a read of a row that somebody waits for. A topic's reads are awaited until Begin names its job, then reading
// until Finish, Fail or Retry.
type read struct {
	done chan struct{}
	err  error // may be looked at once done is closed
}

// wait waits for the end of the read; no read has ended already.
func (r *read) wait(ctx context.Context) error {
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await has the topic read, and returns the read, which begins after this call. The caller holds mu.
func (h *Hub) await(t *topic) *read {
	if len(t.awaited) == 0 {
		t.awaited = append(t.awaited, &read{done: make(chan struct{})})
		t.retryAt = time.Time{}
		h.urgent[t.id] = t
		h.want(t)
	}
	return t.awaited[0]
}

// want has the topic read, unless a read of it failed a moment ago. The caller holds mu.
func (h *Hub) want(t *topic) {
	if !t.retryAt.IsZero() && time.Now().Before(t.retryAt) {
		return // it is polled meanwhile
	}
	h.wanted[t.id] = t
	h.wakeUp()
}

func (h *Hub) wakeUp() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// answer ends the reads that have begun. The caller holds Hub.mu.
func (t *topic) answer(err error) {
	for _, r := range t.reading {
		r.err = err
		close(r.done)
	}
	t.reading = nil
}
