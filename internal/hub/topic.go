package hub

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// topic is one job as its subscribers see it. It holds state, not a queue: each part only in its newest version.
type topic struct {
	id  job.ID
	tag string // begins this topic's event ids and no other's

	// Guarded by Hub.mu.
	bucket        byte
	subscribers   int
	idleSince     time.Time // when subscribers became 0
	awaited       []*read   // that have not begun
	reading       []*read   // that have
	begun         bool      // a read was handed out, and has not ended
	notified      bool      // changes that the last read did not see are notified; else the topic is polled
	unnotified    bool      // a read has found a change that should have been notified, and was not so far
	firstNotified time.Time // of the first notification since the last read began; zero is none
	readNotified  time.Time // firstNotified when the read under way began
	run, seen     string    // of the last read
	failures      int       // reads that failed since the last one that did not
	retryAt       time.Time // not to be read before, after a failure

	mu         sync.Mutex
	version    uint64        // grows with each change
	parts      []*part       // by version
	changed    chan struct{} // closed with the next change; nil when nobody waits for it
	wakers     []Waker       // woken with each change
	encoded    prometheus.Counter
	shown      bool         // row is one
	gone       bool         // the row was deleted; final
	removed    bool         // and that does not mean that the job has succeeded
	row        job.Snapshot // the last that was found, without its items
	notifiedAt time.Time    // when the change that is being applied was notified

	progress, status, message *part            // in parts, or nil
	items                     map[string]*part // nil while there are none
}

// part is one thing that viewers see, with the version at which it last changed.
type part struct {
	version    uint64
	data       []byte    // the event's data line, encoded once for all viewers
	blank      bool      // only says that something is gone, so a new viewer is spared it
	notifiedAt time.Time // when its change was notified; zero when it was found by polling

	item *job.Item // nil when it is none
}

func newTopic(id job.ID, bucket byte, encoded prometheus.Counter) *topic {
	random := make([]byte, 6)
	rand.Read(random)
	return &topic{
		id:      id,
		bucket:  bucket,
		tag:     hex.EncodeToString(random),
		encoded: encoded,
	}
}

// current reports whether the topic shows a row that goes on. An ended job does not count: that it has ended, and was not
// started again, closes a viewer for good, so it is always read.
func (t *topic) current() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown && !t.gone && !t.row.State.Status.Terminal()
}

// found reports whether there is a row to show.
func (t *topic) found() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown && !t.gone
}

// deleted reports whether the row was there, and is not any more.
func (t *topic) deleted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gone
}

// apply shows what a read saw, and reports whether that is something new. deleted is what it means that the row is not
// there any more.
func (t *topic) apply(s job.Snapshot, notifiedAt time.Time, deleted job.Deleted) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	version, account, gone := t.version, t.row.State.Account, t.gone
	t.notifiedAt = notifiedAt
	switch {
	case s.Found:
		t.showItems(s.Items, s.AllItems)
		t.show(s.State)
		t.row, t.row.Items = s, nil
	case t.shown:
		t.vanish(deleted)
	}
	if t.row.State.Account != account || t.gone != gone {
		t.version++ // what is not sent counts too: it may end a stream
	}
	if t.version == version {
		return false
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	for _, w := range t.wakers {
		w.Wake()
	}
	return true
}

// show makes s what viewers see. Parts get their versions in the order in which they are sent: the status of an ended
// job last. The caller holds mu.
func (t *topic) show(s job.State) {
	old := t.row.State
	t.row.State, t.shown = s, true
	if s.Progress != old.Progress {
		t.progress = t.put(t.progress, part{data: sse.Data(s.Progress.Event()), blank: s.Progress.Total == 0 && s.Progress.Message == ""})
	}
	showStatus := func() {
		if s.Status != old.Status {
			t.status = t.put(t.status, part{data: sse.Data(s.Status.Event())})
		}
	}
	if !s.Status.Terminal() {
		showStatus()
	}
	if s.Error != old.Error {
		t.message = t.put(t.message, part{data: sse.Data(job.ErrorEvent(s.Error)), blank: s.Error == ""})
	}
	if s.Status.Terminal() {
		showStatus()
	}
}

// vanish shows that the row is gone. The caller holds mu.
func (t *topic) vanish(deleted job.Deleted) {
	t.gone, t.removed = true, deleted != job.DeletedCompleted
	switch {
	case t.row.State.Status.Terminal(): // that is the last to see
		return
	case deleted == job.DeletedCompleted:
		s := t.row.State
		s.Status, s.Error = job.Completed, ""
		t.show(s)
		return
	}
	t.message = t.put(t.message, part{data: sse.Data(job.ErrorEvent("job no longer exists"))})
}

// put replaces a part by its newer form and gives that the next version. The caller holds mu.
func (t *topic) put(old *part, p part) *part {
	if old != nil {
		t.drop(old)
	}
	t.version++
	t.encoded.Inc()
	p.version, p.notifiedAt = t.version, t.notifiedAt
	t.parts = append(t.parts, &p)
	return &p
}

func (t *topic) drop(p *part) {
	for i, q := range t.parts {
		if q == p {
			t.parts = append(t.parts[:i], t.parts[i+1:]...)
			return
		}
	}
}
