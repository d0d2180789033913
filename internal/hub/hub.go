// Package hub is the picture in memory of every watched job. The bus brings notices and snapshots in, streams take
// what has changed out; nobody waits for anybody. It knows no database and no HTTP.
//
// A topic is one job: its newest state with a version for each part. Locks are taken hub before topic, never the
// other way round.
package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/job"
)

// Linger is how long a topic outlives its last watcher, so that a page that is loaded again finds it warm.
const Linger = time.Minute

// What Watch fails with.
var (
	ErrNotFound    = errors.New("job not found")
	ErrUnavailable = errors.New("job can't be read now")
)

// Hub holds the topics. Its methods may be called from any goroutine, Apply and Settle from the bus alone.
type Hub struct {
	metrics metrics

	mu      sync.Mutex
	topics  map[job.ID]*topic
	wanted  map[job.ID]*topic // to be read
	urgent  map[job.ID]*topic // those of them that somebody waits for
	wake    chan struct{}     // holds a token while wanted is not empty
	epoch   uint64            // counts the LISTENs; a read that began in an earlier one proves nothing
	gate    gate
	live    bool          // the bus has proven that it hears
	changed chan struct{} // closed when live changes
}

// New makes an empty hub that registers its metrics with reg.
func New(reg prometheus.Registerer) *Hub {
	h := &Hub{
		topics:  make(map[job.ID]*topic),
		wanted:  make(map[job.ID]*topic),
		urgent:  make(map[job.ID]*topic),
		wake:    make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
	h.metrics = newMetrics(reg, h)
	return h
}

// Watch finds the topic of a job, has its row read if nobody watches it yet, and waits for that. Watchers that come
// together share one read. It fails with ErrNotFound, ErrUnavailable or the error of ctx. The caller closes the
// Watcher.
func (h *Hub) Watch(ctx context.Context, id job.ID) (*Watcher, error) {
	for {
		w, read, begun := h.join(id)
		err := read.wait(ctx)
		if err == nil && w.topic.found() {
			w.fresh = read != nil && !begun
			return w, nil
		}
		w.Close()
		if err != nil {
			return nil, err
		}
		if !begun {
			return nil, ErrNotFound
		}
		// The job may have come to be since that read began.
	}
}

// join makes a watcher, and says which read it is to wait for, if any, and whether that has begun already.
func (h *Hub) join(id job.ID) (w *Watcher, r *read, begun bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[id]
	if t == nil {
		t = newTopic(id, h.metrics.encoded)
		h.topics[id] = t
		h.gate.topics[id.Bucket()]++
	}
	t.watchers++
	h.gate.watchers[id.Bucket()]++
	w = &Watcher{hub: h, topic: t}
	switch {
	case h.live && t.current():
		return w, nil, false
	case len(t.reading) > 0 && !t.found(): // the first read: what it is too early to see will be notified
		return w, t.reading[0], true
	}
	return w, h.await(t), false
}

func (h *Hub) leave(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.watchers--
	h.gate.watchers[t.id.Bucket()]--
	if t.watchers > 0 {
		return
	}
	t.idleSince = time.Now()
	if !t.found() {
		h.forget(t) // else anybody could fill the memory with ids that are no job's
	}
}

// forget drops the topic; whoever waits for a read of it has its answer. The caller holds mu.
func (h *Hub) forget(t *topic) {
	if h.topics[t.id] == t {
		delete(h.topics, t.id)
		h.gate.topics[t.id.Bucket()]--
		delete(h.wanted, t.id)
		delete(h.urgent, t.id)
	}
	t.reading, t.awaited = append(t.reading, t.awaited...), nil
	t.answer(nil)
}

// Live tells whether the bus hears the database, and gives a channel that is closed when that changes.
func (h *Hub) Live() (live bool, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live, h.changed
}

// SetLive is called by the bus when it has proven that it hears, and when it no longer can. While it does not, a new
// watcher's row is always read.
func (h *Hub) SetLive(live bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == live {
		return
	}
	h.live = live
	close(h.changed)
	h.changed = make(chan struct{})
}
