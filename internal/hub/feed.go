package hub

import (
	"fmt"
	"time"

	"jobprogress/internal/job"
)

// What became of a notice, as the metrics name it.
const (
	Applied   = ""
	Unwatched = "unwatched" // nobody watches the job
	Stale     = "stale"     // the row was read after the notice's transaction had committed
	Disarmed  = "disarmed"  // the job's bucket is: nothing shows but what is read
)

// Apply takes a notice about a job into its topic and says what became of it. Notices come in the order in which
// their transactions committed.
func (h *Hub) Apply(n job.Notice) string {
	h.mu.Lock()
	t := h.topics[n.Job]
	armed := h.gate.armed[n.Job.Bucket()] != 0
	h.mu.Unlock()
	switch {
	case t == nil:
		return Unwatched
	case !armed && n.Kind != job.KindItem:
		return Disarmed
	}
	switch n.Kind {
	case job.KindItem:
		t.applyItem(n)
	case job.KindState:
		if t.applyState(n) {
			return Stale
		}
	case job.KindRow:
		h.reread(t)
	}
	return Applied
}

func (h *Hub) reread(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics[t.id] == t {
		h.want(t)
	}
}

// Relisten begins a new epoch: a new LISTEN has committed, and what was notified before it is lost. Transaction ids
// are forgotten, they may be another server's; no bucket is armed; and every topic is to be read.
func (h *Hub) Relisten() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch++
	clear(h.gate.armed[:])
	for _, t := range h.topics {
		t.unsettle()
		h.want(t)
	}
}

// Wanted holds a token when there is a Next.
func (h *Hub) Wanted() <-chan struct{} { return h.wake }

// Next returns at most limit jobs that are to be read now, first those that somebody waits for.
func (h *Hub) Next(limit int) (ids []job.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.urgent {
		if len(ids) == limit {
			return ids
		}
		ids = append(ids, id)
	}
	for id := range h.wanted {
		if len(ids) == limit {
			return ids
		}
		if h.urgent[id] == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Take says that these jobs are about to be read, and returns the epoch to name to Settle.
func (h *Hub) Take(ids []job.ID) (epoch uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		delete(h.urgent, id)
		delete(h.wanted, id)
		if t := h.topics[id]; t != nil {
			t.reading, t.awaited, t.begun = append(t.reading, t.awaited...), nil, true
			t.armed = h.gate.armed[id.Bucket()]
			t.readBegins()
		}
	}
	if len(h.wanted) > 0 {
		h.wakeUp()
	}
	return h.epoch
}

// Settle takes in what a read begun after Take has seen, and returns the jobs of which it showed something new. Reads
// follow one another, so each sees all that the one before it saw.
func (h *Hub) Settle(epoch uint64, snapshots []job.Snapshot) (changed []job.ID) {
	for _, s := range snapshots {
		if h.settle(epoch, s) {
			changed = append(changed, s.ID)
		}
	}
	return changed
}

func (h *Hub) settle(epoch uint64, s job.Snapshot) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[s.ID]
	if t == nil || !t.begun {
		return false // the read was of a topic before this one
	}
	t.begun = false
	armed := h.gate.armed[s.ID.Bucket()]
	if epoch != h.epoch || armed != t.armed { // the read proves nothing of what came after it began
		h.retry(t)
		return false
	}
	changed, again := t.applySnapshot(s, armed != 0)
	if again {
		h.retry(t)
		return false
	}
	if !s.Found {
		h.forget(t) // if the job comes to be, that is a new topic
	}
	t.answer(nil)
	return changed
}

// Fail says that the jobs could not be read. Those who wait for one are told so; those who watch one keep what they
// see, and the job stays wanted.
func (h *Hub) Fail(ids []job.ID, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		t := h.topics[id]
		if t == nil || !t.begun {
			continue
		}
		t.begun = false
		t.answer(fmt.Errorf("%w: %w", ErrUnavailable, err))
		h.want(t)
	}
}

// Sweep has every topic read again, and forgets those that nobody has watched for as long as Linger. It returns how
// many topics there are.
func (h *Hub) Sweep() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		if t.watchers == 0 && time.Since(t.idleSince) >= Linger {
			h.forget(t)
			continue
		}
		h.want(t)
	}
	return len(h.topics)
}
