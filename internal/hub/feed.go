package hub

import (
	"fmt"
	"math"
	"time"

	"jobprogress/internal/job"
)

// Feed is what the bus calls. It says which jobs are wanted (Want, Poll, Backstop, Resync), and reads them: Begin, then
// Finish, Fail or Retry. Reads follow one another, so each sees all that the one before it saw. A job that is wanted while a
// read of it is under way is read once more.
//
// A topic is notified when all changes since its last read will be notified; else it is polled.
type Feed struct{ hub *Hub }

// Feed returns the bus's side of the hub.
func (h *Hub) Feed() Feed { return Feed{h} }

// Want is a notification that names a job. It reports whether the job has a topic.
func (f Feed) Want(id job.ID) bool {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[id]
	if t == nil {
		return false
	}
	if t.firstNotified.IsZero() {
		t.firstNotified = time.Now()
	}
	t.unnotified = false
	h.want(t)
	return true
}

// Wanted holds a token when there is something to Begin.
func (f Feed) Wanted() <-chan struct{} { return f.hub.wake }

// Next are the buckets of at most limit jobs that Begin would return now.
func (f Feed) Next(limit int) (buckets job.Buckets) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for _, t := range f.hub.next(limit) {
		buckets[t.bucket] = true
	}
	return buckets
}

// next are at most limit topics to be read now, those that somebody waits for first. One whose last read failed is read
// alone, after the others. The caller holds mu.
func (h *Hub) next(limit int) (topics []*topic) {
	var failed *topic
	take := func(t *topic) (full bool) {
		switch {
		case len(topics) == limit:
			return true
		case t.failures > 0:
			failed = t
		default:
			topics = append(topics, t)
		}
		return false
	}
	for _, t := range h.urgent {
		if take(t) {
			return topics
		}
	}
	for id, t := range h.wanted {
		if h.urgent[id] == nil && take(t) {
			return topics
		}
	}
	if len(topics) == 0 && failed != nil {
		return []*topic{failed}
	}
	return topics
}

// Begin returns what is to be read now, at most limit jobs.
func (f Feed) Begin(limit int) (requests []job.Request) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.next(limit) {
		delete(h.urgent, t.id)
		delete(h.wanted, t.id)
		t.reading, t.awaited = append(t.reading, t.awaited...), nil
		t.begun, t.readNotified, t.firstNotified = true, t.firstNotified, time.Time{}
		requests = append(requests, job.Request{ID: t.id, Bucket: t.bucket, Run: t.run, Seen: t.seen})
	}
	if len(h.wanted) > 0 {
		h.wakeUp()
	}
	return requests
}

// Finish takes in what a read saw. seen is its pg_snapshot; notified reports for each bucket whether changes that this
// read did not see will be notified. It returns the bucket of each job that has changed.
func (f Feed) Finish(snapshots []job.Snapshot, seen string, notified job.Buckets) (changed []byte) {
	for _, s := range snapshots {
		if bucket, news := f.hub.finish(s, seen, notified); news {
			changed = append(changed, bucket)
		}
	}
	return changed
}

func (h *Hub) finish(s job.Snapshot, seen string, notified job.Buckets) (bucket byte, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[s.ID]
	if t == nil || !t.begun {
		return 0, false // the read was of a topic before this one
	}
	t.begun = false
	changed = t.apply(s, t.readNotified, h.table.Deleted)
	if changed && t.notified && t.readNotified.IsZero() {
		t.unnotified = true // unless its notification is still on the way
	}
	t.notified, t.run, t.seen = notified[t.bucket], s.Run, seen
	t.failures, t.retryAt = 0, time.Time{}
	if t.deleted() {
		h.forget(t) // if the job comes to be again, that is a new topic
	}
	t.answer(nil)
	return t.bucket, changed
}

const (
	// firstRetry is the wait after a read of a job that failed. It doubles up to mostRetry.
	firstRetry = 500 * time.Millisecond
	mostRetry  = 5 * time.Second
)

// Fail says that the jobs could not be read. Those who wait for one get the error; those who watch one keep what they
// see. The jobs are polled again, at growing intervals.
func (f Feed) Fail(requests []job.Request, err error) {
	f.hub.unread(requests, func(t *topic) {
		t.retryAt = time.Now().Add(min(firstRetry<<min(t.failures-1, 20), mostRetry))
		t.answer(fmt.Errorf("%w: %w", ErrUnavailable, err))
	})
}

// FailAll fails all that is to be read.
func (f Feed) FailAll(err error) {
	f.FailLists(f.BeginLists(math.MaxInt), err)
	for requests := f.Begin(math.MaxInt); len(requests) > 0; requests = f.Begin(math.MaxInt) {
		f.Fail(requests, err)
	}
}

// Retry says that a session was lost before it could read the jobs. Those who wait for one wait for the next session.
func (f Feed) Retry(requests []job.Request) {
	f.hub.unread(requests, func(t *topic) {
		t.awaited, t.reading = append(t.reading, t.awaited...), nil
		if len(t.awaited) > 0 {
			f.hub.urgent[t.id] = t
		}
		f.hub.want(t)
	})
}

// unread ends reads that saw nothing.
func (h *Hub) unread(requests []job.Request, end func(*topic)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range requests {
		if t := h.topics[r.ID]; t != nil && t.begun {
			t.begun, t.notified = false, false
			t.failures++
			end(t)
		}
	}
}

// Poll has the watched jobs read that are not notified, and returns how many they are.
func (f Feed) Poll() (jobs int) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		if !t.notified && t.subscribers > 0 {
			h.want(t)
			jobs++
		}
	}
	return jobs
}

// Backstop has every topic read, and forgets those unwatched for as long as Linger. It returns how many
// changes the reads since the last time found that were not notified.
func (f Feed) Backstop() (unnotified int) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		if t.unnotified {
			t.unnotified = false
			unnotified++
		}
		if t.subscribers == 0 && time.Since(t.idleSince) >= Linger {
			h.forget(t)
			continue
		}
		h.want(t)
	}
	return unnotified
}

// Resync has every topic read as if for the first time: a session is new, and may be one with another server.
func (f Feed) Resync() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		t.notified, t.unnotified, t.seen = false, false, ""
		h.want(t)
	}
}

// Release says that from now on changes of these buckets' jobs may not be notified.
func (f Feed) Release(buckets job.Buckets) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		if buckets[t.bucket] {
			t.notified = false
		}
	}
}

// Buckets are those of all topics.
func (f Feed) Buckets() (buckets job.Buckets) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for b, topics := range f.hub.in {
		buckets[b] = topics > 0
	}
	return buckets
}

// SetTable says what is known of the job table. When that changes, topics are polled until their new buckets are notified,
// and jobs whose ids are none in the new table are gone.
func (f Feed) SetTable(table job.Table) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.table == table {
		return
	}
	h.table = table
	h.in = [len(job.Buckets{})]int{}
	for id, t := range h.topics {
		t.bucket, t.notified = table.IDType.Bucket(id), false
		h.in[t.bucket]++
		if _, err := table.IDType.Parse(string(id)); err != nil {
			t.apply(job.Snapshot{ID: id}, time.Time{}, job.DeletedGone)
			h.forget(t)
		}
	}
	h.announce()
}

// Table is the last that SetTable said.
func (f Feed) Table() job.Table { return f.hub.tableNow() }

func (h *Hub) tableNow() job.Table {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.table
}

// SetLive says that the bus has proven that notifications reach it.
func (f Feed) SetLive() { f.hub.setStatus(Status{Live: true, Proven: true}) }

// SetDegraded says that it does not, and why. While it lasts, every new subscriber has the row read.
func (f Feed) SetDegraded(reason string) { f.hub.setStatus(Status{Reason: reason}) }

func (h *Hub) setStatus(s Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Proven = s.Proven || h.status.Proven
	if h.status == s {
		return
	}
	h.status = s
	h.announce()
}

// announce wakes those who wait for a change of status or table. The caller holds mu.
func (h *Hub) announce() {
	close(h.changed)
	h.changed = make(chan struct{})
}
