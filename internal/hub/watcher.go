package hub

import (
	"context"
	"sync"
	"time"

	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// Watcher looks at one topic. It holds no state of its own: the caller keeps the cursor.
type Watcher struct {
	hub   *Hub
	topic *topic
	fresh bool // the row was read after Watch had been called
	once  sync.Once
}

// Close ends the watch. It may be called more than once.
func (w *Watcher) Close() { w.once.Do(func() { w.hub.leave(w.topic) }) }

// Refresh has the row read, and waits for that, unless it was read after Watch had been called: what ends a client for
// good must not be said of a row that has changed a moment ago. It fails as Watch does.
func (w *Watcher) Refresh(ctx context.Context) error {
	if w.fresh {
		return nil
	}
	w.hub.mu.Lock()
	var read *read
	if w.hub.topics[w.topic.id] == w.topic { // else it is forgotten, because the row is gone
		read = w.hub.await(w.topic)
	}
	w.hub.mu.Unlock()
	if err := read.wait(ctx); err != nil {
		return err
	}
	if !w.topic.found() {
		return ErrNotFound
	}
	return nil
}

// Account is the job's owner now; "" when it has none.
func (w *Watcher) Account() string {
	w.topic.mu.Lock()
	defer w.topic.mu.Unlock()
	return w.topic.state.Account
}

// Batch is what a viewer has not seen yet.
type Batch struct {
	Frames  []Frame
	Cursor  Cursor          // to ask with next time
	Account string          // the job's owner now; "" when it has none
	End     End             // whether more is to come
	Changed <-chan struct{} // closed when there is more than this batch
}

// Frame is an event: its id, and its data line, which all viewers share and nobody may write to.
type Frame struct {
	ID   string
	Data []byte
	At   time.Time // when its writer committed, by the database's clock; zero when it comes from a read
}

// End says what follows a batch.
type End int

// The ends of a topic.
const (
	Open  End = iota // there may be more
	Final            // the job is completed or failed, and the last frame says so
	Gone             // the row was deleted, and the last frame says so
)

// Changes returns all that a viewer who stands there has not seen.
func (w *Watcher) Changes(cursor Cursor) Batch {
	t := w.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	b := Batch{Cursor: t.end(), Account: t.state.Account, Changed: t.changed}
	switch {
	case t.gone:
		b.End = Gone
	case t.state.Status.Terminal():
		b.End = Final
	}
	parts := t.since(cursor)
	b.Frames = make([]Frame, len(parts))

	// A viewer that is cut off between two frames comes back with the id of the first: it must stand before
	// everything that was still to be sent, in whatever order that is.
	at, rest := b.Cursor, t.version+1
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		at.version = rest - 1
		id := t.eventID(at)
		if p == t.status && b.End == Final {
			id = t.finalID()
		}
		b.Frames[i] = Frame{ID: id, Data: p.data, At: p.at}
		rest = min(rest, p.version)
		at.bar, at.complaint = at.bar || cursor.bar, at.complaint || cursor.complaint // it may show what it did, until the last
	}
	return b
}

// since returns the parts newer than the cursor in the order in which they are to be sent: by version, but for a new
// viewer the job before its items, and always the status of an ended job last. The caller holds mu.
func (t *topic) since(cursor Cursor) []*part {
	first := len(t.parts)
	for first > 0 && t.parts[first-1].version > cursor.version {
		first--
	}
	parts := make([]*part, 0, len(t.parts)-first+1)
	last := t.last()
	take := func(p *part) {
		if p != nil && p.version > cursor.version && p != last {
			parts = append(parts, p)
		}
	}
	if cursor.Known() {
		for _, p := range t.parts[first:] {
			take(p)
		}
	} else {
		for _, p := range []*part{
			shown(t.progress, cursor.bar, job.Progress{}.Event()), t.status, shown(t.message, cursor.complaint, job.ErrorEvent("")),
		} {
			take(p)
		}
		for _, p := range t.parts {
			if p.item != nil {
				take(p)
			}
		}
	}
	if last != nil {
		parts = append(parts, last) // whatever the cursor: the stream ends here, and must not end without it
	}
	return parts
}

// shown is what a viewer new to this topic is to be told of a part: what it says, or, if the viewer shows one that is
// gone, that it is; else nil.
func shown(p *part, before bool, blank []byte) *part {
	switch {
	case p != nil && !p.blank:
		return p
	case before:
		return &part{version: 1, data: sse.Data(blank), blank: true}
	}
	return nil
}

// last is the part after which a stream ends, or nil. The caller holds mu.
func (t *topic) last() *part {
	switch {
	case t.gone:
		return t.message
	case t.state.Status.Terminal():
		return t.status
	}
	return nil
}
