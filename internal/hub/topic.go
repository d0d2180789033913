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

// topic is one job as its watchers see it. It holds state, not a queue: each part only in its newest version.
type topic struct {
	id  job.ID
	tag string // begins this topic's event ids and no other's

	// Guarded by Hub.mu.
	watchers  int
	idleSince time.Time // when watchers became 0
	awaited   []*read   // that have not begun
	reading   []*read   // that have
	begun     bool      // a read was handed out and is not settled
	armed     uint64    // what the bucket's was when that was

	mu      sync.Mutex
	version uint64
	parts   []*part       // by version
	changed chan struct{} // closed with each new version
	encoded prometheus.Counter

	position
	shown bool // state is a row's
	gone  bool // the row was deleted, or never was; final
	state job.State

	progress, status, message *part // in parts, or nil
	items                     map[string]*part
}

// part is one thing that viewers see, with the version at which it last changed.
type part struct {
	version uint64
	data    []byte // the event's data line, encoded once for all viewers
	blank   bool   // only says that something is gone, so a new viewer is spared it
	at      time.Time

	item *job.Item // nil when it is none
}

func newTopic(id job.ID, encoded prometheus.Counter) *topic {
	random := make([]byte, 6)
	rand.Read(random)
	return &topic{
		id:      id,
		tag:     hex.EncodeToString(random),
		changed: make(chan struct{}),
		encoded: encoded,
		items:   make(map[string]*part),
	}
}

// show makes s what viewers see. Parts get their versions in the order in which viewers are to hear of them: the
// status of an ended job last. The caller holds mu.
func (t *topic) show(s job.State, at time.Time) {
	before := t.version
	old := t.state
	t.state, t.shown = s, true
	if old.Status.Terminal() && !s.Status.Terminal() {
		t.startAgain()
	}
	if s.Progress != old.Progress {
		t.progress = t.put(t.progress, part{data: s.Progress.Event(), blank: s.Progress.Total == 0, at: at})
	}
	sayStatus := func() {
		if s.Status != old.Status {
			t.status = t.put(t.status, part{data: s.Status.Event(), at: at})
		}
	}
	if !s.Status.Terminal() {
		sayStatus()
	}
	if s.Error != old.Error {
		t.message = t.put(t.message, part{data: job.ErrorEvent(s.Error), blank: s.Error == "", at: at})
	}
	if s.Status.Terminal() {
		sayStatus()
	}
	if t.version != before || s.Account != old.Account {
		t.wakeAll()
	}
}

// put replaces a part by its newer form and gives that the next version. The caller holds mu.
func (t *topic) put(old *part, p part) *part {
	if old != nil {
		t.drop(old)
	}
	t.version++
	t.encoded.Inc()
	p.version = t.version
	p.data = sse.Data(p.data)
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

// wakeAll tells the watchers to look. The caller holds mu.
func (t *topic) wakeAll() {
	close(t.changed)
	t.changed = make(chan struct{})
}
