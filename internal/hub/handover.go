package hub

import (
	"time"

	"jobprogress/internal/job"
)

// The hand-over between snapshots and notices. A notice whose transaction a snapshot saw is in the snapshot's row
// already; any other one is newer than it. Notices come in commit order, and whatever a snapshot saw, it saw all that
// was notified before: so the newest notice alone decides, and there is no gap and no step back.

// position is where a topic stands in the order of commits.
type position struct {
	settled bool           // the row was read while its bucket was armed, and every change since was told
	visible job.Visibility // of the last snapshot taken in
	newest  uint64         // xid of the last notice taken in since the last read began; 0 is none
	pending *job.Notice    // the newest that came while the topic was not settled
}

// ahead tells whether the topic has taken in something that s did not see.
func (p position) ahead(s job.Snapshot) bool {
	return p.newest != 0 && !s.Visible.Includes(p.newest)
}

// readBegins notes that a read begins: it sees whatever was notified before, so nothing before it can be ahead of it. A
// notice that claims to be must not outlive the read.
func (t *topic) readBegins() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest, t.pending = 0, nil
}

// unsettle forgets where the topic stands, not what it shows.
func (t *topic) unsettle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.position = position{}
}

// current tells whether the topic shows the row as far as is known, so that it needs no read. An ended job does not
// count: that it has ended, and was not started again, closes a viewer for good.
func (t *topic) current() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settled && !t.gone && !t.state.Status.Terminal()
}

// found tells whether there is a row to show.
func (t *topic) found() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown && !t.gone
}

// applyState shows the state of a notice unless it is in the row that was read.
func (t *topic) applyState(n job.Notice) (stale bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.gone:
		return true
	case !t.settled:
		t.pending, t.newest = &n, n.XID
	case t.visible.Includes(n.XID):
		return true
	default:
		t.newest = n.XID
		t.show(n.State, n.At)
	}
	return false
}

// applySnapshot shows the row as it was read unless the topic is ahead of it, and tells whether that is something new.
// With armed, every change since will have been told. It asks for another read when this one was too early to tell.
func (t *topic) applySnapshot(s job.Snapshot, armed bool) (changed, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.version
	ahead := t.ahead(s)
	switch {
	case !s.Found && ahead:
		return false, true // a later transaction has updated a row that this read saw none of
	case !s.Found:
		t.vanish()
	case !ahead:
		t.show(s.State, time.Time{})
	case t.pending != nil:
		t.show(t.pending.State, t.pending.At)
	}
	t.position = position{settled: armed, visible: s.Visible, newest: t.newest}
	return t.version != before, false
}

// vanish tells the watchers, if there are any, that the row is gone. The caller holds mu.
func (t *topic) vanish() {
	t.gone = true
	if t.shown {
		t.message = t.put(t.message, part{data: job.ErrorEvent("job no longer exists")})
	}
	t.wakeAll()
}
