package hub

import (
	"context"

	"jobprogress/internal/job"
)

// Group is how a stream of many jobs begins: each of them is read, and waited for. It belongs to one goroutine.
type Group struct {
	List *List // the account's list; nil where the jobs are given
	// Members are the jobs' subscribers, in order. One is nil for an id that is none in the present table.
	Members []*Subscriber

	hub   *Hub
	reads []*read // that Wait waits for
}

// Group subscribes to the jobs, whether they are there or not. The caller closes it, or all of its members.
func (h *Hub) Group(ids []job.ID) *Group {
	g := &Group{hub: h}
	for _, id := range ids {
		g.add(id)
	}
	return g
}

// AccountGroup subscribes to an account's list; Wait subscribes to its jobs. The caller closes it, or its list and all of
// its members.
func (h *Hub) AccountGroup(account string) *Group {
	g := &Group{hub: h}
	var r *read
	g.List, r = h.joinList(account)
	g.reads = append(g.reads, r)
	return g
}

// Close ends all subscriptions.
func (g *Group) Close() {
	if g.List != nil {
		g.List.Close()
	}
	for _, s := range g.Members {
		if s != nil {
			s.Close()
		}
	}
}

// Wait waits until the list and all jobs have been read, and reports whether all could be: one that can't is shown as soon
// as it can. It fails with the error of ctx, or with ErrUnavailable if the list or none of the jobs could be read.
func (g *Group) Wait(ctx context.Context) (whole bool, err error) {
	if g.List != nil {
		if err := g.reads[0].wait(ctx); err != nil {
			return false, err
		}
		g.reads = nil
		for _, id := range g.List.IDs() {
			g.add(id)
		}
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

// add subscribes to a job and has its row read, whatever is known: the viewer may have seen more on another server, and must
// not be taken back.
func (g *Group) add(id job.ID) {
	s, r, begun := g.hub.joinKnown(id)
	g.Members = append(g.Members, s)
	if s == nil {
		return
	}
	if r == nil || begun {
		g.hub.mu.Lock()
		if g.hub.topics[id] == s.topic {
			r = g.hub.await(s.topic)
		}
		g.hub.mu.Unlock()
	}
	if r != nil {
		g.reads = append(g.reads, r)
	}
}

// Join subscribes to a job and does not wait: its row is read, unless it is known. It returns nil if the id is none in the
// present table.
func (h *Hub) Join(id job.ID) *Subscriber {
	s, _, _ := h.joinKnown(id)
	return s
}

// joinKnown joins unless the table was changed for one with other ids.
func (h *Hub) joinKnown(id job.ID) (s *Subscriber, r *read, begun bool) {
	if _, err := h.tableNow().IDType.Parse(string(id)); err != nil {
		return nil, nil, false
	}
	return h.join(id)
}
