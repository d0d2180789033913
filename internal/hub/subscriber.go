package hub

import (
	"context"
	"slices"
	"time"

	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// Subscriber looks at one topic. It holds no state of its own: the caller keeps the cursor.
type Subscriber struct {
	hub    *Hub
	topic  *topic
	waker  Waker
	fresh  bool // the row was read after Subscribe had been called
	closed bool // guarded by Hub.mu
}

// Waker is woken when a topic has changed, or a list. Wake must not block, and must not call the hub.
type Waker interface{ Wake() }

// Watch has the waker woken with each change from now on. A Subscriber has one waker at most.
func (s *Subscriber) Watch(w Waker) {
	s.waker = w
	s.topic.mu.Lock()
	defer s.topic.mu.Unlock()
	s.topic.wakers = append(s.topic.wakers, w)
}

// Close ends the subscription. It may be called more than once.
func (s *Subscriber) Close() {
	if s.waker != nil {
		t := s.topic
		t.mu.Lock()
		t.wakers = slices.DeleteFunc(t.wakers, func(w Waker) bool { return w == s.waker })
		t.mu.Unlock()
		s.waker = nil
	}
	s.hub.leave(s)
}

// ID is the job's.
func (s *Subscriber) ID() job.ID { return s.topic.id }

// Same reports whether both look at one topic. A job that was deleted and came to be again has another one.
func (s *Subscriber) Same(other *Subscriber) bool { return s.topic == other.topic }

// Known reports whether the job has been read, be it there or not.
func (s *Subscriber) Known() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.topic.seen != ""
}

// Stands reports whether a viewer who stands there has seen all that there is.
func (s *Subscriber) Stands(c Cursor) bool {
	s.topic.mu.Lock()
	defer s.topic.mu.Unlock()
	return c.version == s.topic.version
}

// Refresh has the row read, and waits for that, unless it was read after Subscribe had been called: what ends a
// client for good must not be said of a row that has changed a moment ago. It fails as Subscribe does.
func (s *Subscriber) Refresh(ctx context.Context) error {
	if s.fresh {
		s.fresh = false
		return nil
	}
	s.hub.mu.Lock()
	var read *read
	if s.hub.topics[s.topic.id] == s.topic { // else it is forgotten, because the row is gone
		read = s.hub.await(s.topic)
	}
	s.hub.mu.Unlock()
	return read.wait(ctx)
}

// Owner is the job's account, "" if it has none; found reports whether there is such a job.
func (s *Subscriber) Owner() (account string, found bool) {
	s.topic.mu.Lock()
	defer s.topic.mu.Unlock()
	return s.topic.row.State.Account, s.topic.shown && !s.topic.gone
}

// Changed is closed with the next change. A Subscriber of a job that was deleted is woken no more.
func (s *Subscriber) Changed() <-chan struct{} {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// Picture is all that there is to see of a job now.
type Picture struct {
	Row     job.Snapshot // without items
	Found   bool         // else nothing of this is known
	Deleted bool         // the row was there, and is not any more; nothing will change
	Items   []Frame
	Cursor  Cursor // from which Changes go on
	End     End
}

// Picture returns it.
func (s *Subscriber) Picture() Picture {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	p := Picture{Row: t.row, Deleted: t.gone, Cursor: Cursor{version: t.version}, End: t.end()}
	p.Found = t.shown && !t.removed
	for _, part := range t.parts {
		if part.item != nil {
			p.Items = append(p.Items, Frame{Data: part.data})
		}
	}
	return p
}

// Row is the job as it was read last, without items.
func (s *Subscriber) Row() job.Snapshot {
	s.topic.mu.Lock()
	defer s.topic.mu.Unlock()
	return s.topic.row
}

// Batch is what a viewer has not seen yet.
type Batch struct {
	Frames  []Frame
	Cursor  Cursor // to ask with next time
	Account string // the job's owner now; "" when it has none
	End     End    // whether more is to come
	Deleted bool   // the row was there, and is not any more; nothing will change
	Removed bool   // and that does not mean that the job has succeeded
}

// Frame is an event: its id, and its data line, which all viewers share and nobody may write to.
type Frame struct {
	ID   string
	Data []byte
	At   time.Time // when its change was notified; zero when polling found it
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
func (s *Subscriber) Changes(cursor Cursor) Batch {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	b := Batch{Cursor: Cursor{version: t.version}, Account: t.row.State.Account, End: t.end(), Deleted: t.gone, Removed: t.removed}
	parts := t.since(cursor)
	b.Frames = make([]Frame, len(parts))

	// A viewer that is cut off between two frames comes back with the id of the first: it must stand before
	// everything that was still to be sent, in whatever order that is.
	rest := t.version + 1
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		id := t.eventID(rest - 1)
		if p == t.status && b.End == Final {
			id = t.finalID()
		}
		b.Frames[i] = Frame{ID: id, Data: p.data, At: p.notifiedAt}
		rest = min(rest, p.version)
	}
	return b
}

// since returns the parts newer than the cursor in the order in which they are sent: by version, but for a viewer new to
// this topic the job before its items, and always the status of an ended job last. The caller holds mu.
func (t *topic) since(cursor Cursor) []*part {
	first := len(t.parts)
	for first > 0 && t.parts[first-1].version > cursor.version {
		first--
	}
	parts := make([]*part, 0, len(t.parts)-first+3)
	last := t.last()
	take := func(p *part) {
		if p != nil && p != last {
			parts = append(parts, p)
		}
	}
	if cursor.Known() {
		for _, p := range t.parts[first:] {
			take(p)
		}
	} else {
		take(whole(t.progress, cursor.foreign(), job.Progress{}.Event()))
		take(t.status)
		take(whole(t.message, cursor.foreign(), job.ErrorEvent("")))
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

// whole is what a viewer new to this topic is sent of a part: what it says, or, if there is nothing and the page may show
// something from elsewhere, that it is gone; else nil.
func whole(p *part, foreign bool, blank []byte) *part {
	switch {
	case p != nil && !p.blank:
		return p
	case foreign:
		return &part{version: 1, data: sse.Data(blank)}
	}
	return nil
}

// end says what follows what there is now. The caller holds mu.
func (t *topic) end() End {
	switch {
	case t.row.State.Status.Terminal():
		return Final
	case t.gone:
		return Gone
	}
	return Open
}

// last is the part after which a stream ends, or nil. The caller holds mu.
func (t *topic) last() *part {
	switch {
	case t.row.State.Status.Terminal():
		return t.status
	case t.gone:
		return t.message
	}
	return nil
}
