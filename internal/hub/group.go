package hub

import (
	"context"
	"sync"

	"jobprogress/internal/job"
)

// Group is what a stream of many jobs watches: a set of them, or an account's list. Its methods but mark belong to the
// stream.
type Group struct {
	hub     *Hub
	list    *list // nil: the jobs are given
	members map[job.ID]*Subscriber
	waiting bool    // Wait has not ended
	reads   []*read // that it waits for

	wake chan struct{} // holds a token when something has changed

	mu      sync.Mutex
	changed map[job.ID]bool
}

func (h *Hub) newGroup() *Group {
	return &Group{hub: h, waiting: true, members: make(map[job.ID]*Subscriber), wake: make(chan struct{}, 1), changed: make(map[job.ID]bool)}
}

// Group watches the jobs, whether they are there or not. The caller closes it.
func (h *Hub) Group(ids []job.ID) *Group {
	g := h.newGroup()
	for _, id := range ids {
		g.Add(id)
	}
	return g
}

// AccountGroup watches the jobs of an account's list. The caller closes it.
func (h *Hub) AccountGroup(account string) *Group {
	g := h.newGroup()
	var r *read
	g.list, r = h.joinList(account, g)
	g.reads = append(g.reads, r)
	return g
}

// Close ends all subscriptions.
func (g *Group) Close() {
	if g.list != nil {
		g.hub.leaveList(g.list, g)
	}
	for id := range g.members {
		g.Remove(id)
	}
}

// Wait waits until the list and all jobs have been read, and reports whether all could be: one that can't is shown as soon
// as it can. It fails with the error of ctx, or with ErrUnavailable if the list or none of the jobs could be read.
func (g *Group) Wait(ctx context.Context) (whole bool, err error) {
	defer func() { g.waiting, g.reads = false, nil }()
	if g.list != nil {
		if err := g.reads[0].wait(ctx); err != nil {
			return false, err
		}
		g.reads = nil
		g.Adjust()
	}
	failures := 0
	for _, r := range g.reads {
		if failed := r.wait(ctx); failed != nil {
			err = failed
			failures++
		}
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case failures > 0 && failures == len(g.reads):
		return false, err
	}
	return failures == 0, nil
}

// Whole reports whether all members have been read, some time.
func (g *Group) Whole() bool {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	for _, s := range g.members {
		if s.topic.seen == "" {
			return false
		}
	}
	return true
}

// Wake holds a token when Changed has something to say.
func (g *Group) Wake() <-chan struct{} { return g.wake }

// mark notes that a job has changed, or with "" the list. It may be called from any goroutine.
func (g *Group) mark(id job.ID) {
	g.mu.Lock()
	if id != "" {
		g.changed[id] = true
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Changed are the members that have changed since the last call.
func (g *Group) Changed() map[job.ID]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	changed := g.changed
	g.changed = make(map[job.ID]bool)
	return changed
}

// Adjust makes the members those of the list, and returns these in order, and the ones that are no more. Where the jobs are
// given it does nothing.
func (g *Group) Adjust() (ids, gone []job.ID) {
	if g.list == nil {
		return nil, nil
	}
	g.hub.mu.Lock()
	ids = g.list.ids
	g.hub.mu.Unlock()
	listed := make(map[job.ID]bool)
	for _, id := range ids {
		listed[id] = true
		if g.members[id] == nil {
			g.Add(id)
		}
	}
	for id := range g.members {
		if !listed[id] {
			g.Remove(id)
			gone = append(gone, id)
		}
	}
	return ids, gone
}

// Member is the subscriber of a job; nil if it is no member.
func (g *Group) Member(id job.ID) *Subscriber { return g.members[id] }

// Add makes the job a member, and has its row read: by Wait in any case, later unless it is known. Changed names it when there is something to see.
func (g *Group) Add(id job.ID) {
	if _, err := g.hub.tableNow().IDType.Parse(string(id)); err != nil {
		return // the table was changed for one with other ids
	}
	s, r, begun := g.hub.join(id)
	g.members[id] = s
	if g.waiting && (r == nil || begun) {
		// The viewer may have seen more on another server than is known here, and must not be taken back.
		g.hub.mu.Lock()
		if g.hub.topics[id] == s.topic {
			r = g.hub.await(s.topic)
		}
		g.hub.mu.Unlock()
	}
	if r != nil && g.waiting {
		g.reads = append(g.reads, r)
	}
	t := s.topic
	t.mu.Lock()
	if t.groups == nil {
		t.groups = make(map[*Group]bool)
	}
	t.groups[g] = true
	t.mu.Unlock()
	g.mark(id) // it may be known already
}

// Renew subscribes to a job again whose row was deleted: it may come to be again.
func (g *Group) Renew(id job.ID) {
	g.Remove(id)
	g.Add(id)
}

// Remove ends the subscription of a job.
func (g *Group) Remove(id job.ID) {
	s := g.members[id]
	if s == nil {
		return
	}
	delete(g.members, id)
	s.topic.mu.Lock()
	delete(s.topic.groups, g)
	s.topic.mu.Unlock()
	s.Close()
}
