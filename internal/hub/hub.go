// Package hub is the picture in memory of every job that somebody watches. The bus reads rows into it, streams take out
// what has changed; nobody waits for anybody. It knows no database and no HTTP.
//
// A topic is one job: its newest state and items, with a version for each part. The bus calls a Feed, streams call
// Subscribe and their Subscriber. Locks are taken hub before topic, never the other way round.
package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/job"
)

// Linger is how long a topic outlives its last subscriber, so that a page that is loaded again finds it warm.
const Linger = time.Minute

// ErrUnavailable is what Subscribe and Refresh fail with when the row can't be read.
var ErrUnavailable = errors.New("job can't be read now")

// Hub holds the topics. Its methods may be called from any goroutine.
type Hub struct {
	metrics metrics

	mu      sync.Mutex
	topics  map[job.ID]*topic
	wanted  map[job.ID]*topic // to be read
	urgent  map[job.ID]*topic // those of them that somebody waits for
	wake    chan struct{}     // holds a token while wanted is not empty, or a list is wanted
	in      [len(job.Buckets{})]int
	lists   map[string]*list // by account
	table   job.Table
	status  Status
	changed chan struct{} // closed when table or status changes
}

// Status is whether the bus is live, and why not.
type Status struct {
	Live   bool
	Proven bool   // it has been live since the start
	Reason string // why it is not live, for people; "" if it is
}

// New makes an empty hub that registers its metrics with reg.
func New(reg prometheus.Registerer) *Hub {
	h := &Hub{
		topics:  make(map[job.ID]*topic),
		wanted:  make(map[job.ID]*topic),
		urgent:  make(map[job.ID]*topic),
		lists:   make(map[string]*list),
		wake:    make(chan struct{}, 1),
		status:  Status{Reason: "starting"},
		changed: make(chan struct{}),
	}
	h.metrics = newMetrics(reg, h)
	return h
}

// Status is how the bus is, with a channel that is closed when that changes.
func (h *Hub) Status() (s Status, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status, h.changed
}

// Table waits until the job table is known. It fails with ErrUnavailable, when ctx ends.
func (h *Hub) Table(ctx context.Context) (job.Table, error) {
	for {
		h.mu.Lock()
		table, changed := h.table, h.changed
		h.mu.Unlock()
		if table != (job.Table{}) {
			return table, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return job.Table{}, fmt.Errorf("%w: the database has not been reached yet", ErrUnavailable)
		}
	}
}

// Subscribe finds the topic of a job, has its row read unless the topic is known to show it, and waits for that.
// Subscribers that come together share one read. A job that is not there has a topic too, for as long as somebody waits
// for it. Subscribe fails with ErrUnavailable or the error of ctx. The caller closes the Subscriber.
func (h *Hub) Subscribe(ctx context.Context, id job.ID) (*Subscriber, error) {
	for {
		s, read, begun := h.join(id)
		if err := read.wait(ctx); err != nil {
			s.Close()
			return nil, err
		}
		if !begun || s.topic.found() {
			s.fresh = read != nil && !begun
			return s, nil
		}
		s.Close() // the job may have come to be since that read began
	}
}

// join makes a subscriber, and returns which read it must wait for, if any, and whether that has begun already.
func (h *Hub) join(id job.ID) (s *Subscriber, r *read, begun bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[id]
	if t == nil {
		t = newTopic(id, h.table.IDType.Bucket(id), h.metrics.encoded)
		h.topics[id] = t
		h.in[t.bucket]++
	}
	t.subscribers++
	s = &Subscriber{hub: h, topic: t}
	switch {
	case h.status.Live && t.notified && t.current():
		return s, nil, false
	case len(t.reading) > 0 && !t.found(): // the first read: what it is too early to see is read after it
		return s, t.reading[0], true
	}
	return s, h.await(t), false
}

func (h *Hub) leave(s *Subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	t := s.topic
	t.subscribers--
	if t.subscribers > 0 {
		return
	}
	t.idleSince = time.Now()
	if !t.found() {
		h.forget(t) // else anybody could fill the memory with ids that are no job's
	}
}

// forget drops the topic and answers all who wait for a read of it. The caller holds mu.
func (h *Hub) forget(t *topic) {
	if h.topics[t.id] == t {
		delete(h.topics, t.id)
		h.in[t.bucket]--
		delete(h.wanted, t.id)
		delete(h.urgent, t.id)
	}
	t.reading, t.awaited = append(t.reading, t.awaited...), nil
	t.answer(nil)
}
