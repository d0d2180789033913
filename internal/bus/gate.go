package bus

import (
	"context"

	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// The gate: the database notifies only what somebody watches, for NOTIFY has commits wait for one another. Where the
// session holds the shared lock of a bucket, the trigger notifies every change of its jobs; where nobody does, a writer
// gets the lock for itself, gives it back at once, and says nothing.
//
// A transaction that found nobody may still be under way when the session takes the lock. So after that the session asks
// which are. Later ones tell all they do. What the earlier ones do is read as soon as they have ended; what they tell is
// not believed, for it may be half of it. So nothing is missed, and nobody waits for anybody.

// gate is what the session holds. It belongs to the goroutine of the session.
type gate struct {
	held    store.Locks
	denied  job.Buckets                // for items: whose locks were not to be had
	since   [len(job.Buckets{})]uint64 // for rows: transactions from this one on tell all they do
	earlier map[byte]job.Visibility    // for rows: which of those before had ended when last seen; not there if all had
}

// half tells whether the transaction of a notice may have changed the job before it began to tell.
func (g *gate) half(n job.Notice) bool {
	b := n.Job.Bucket()
	return g.held.Rows[b] && n.XID < g.since[b]
}

// arm begins to rely on notices of the buckets whose locks have been taken.
func (s *session) arm(ctx context.Context, taken job.Buckets) error {
	visible, since, err := store.Mark(ctx, s.conn)
	if err != nil {
		return err
	}
	under, all := visible.Below(since)
	for b, in := range taken {
		if !in {
			continue
		}
		s.gate.held.Rows[b], s.gate.since[b] = true, since
		if !all {
			s.gate.earlier[byte(b)] = under
		}
	}
	s.Hub.Arm(taken)
	s.metrics.toArmed.Add(float64(taken.Len()))
	return nil
}

// follow has the jobs read that earlier transactions may have changed that have ended by now.
func (s *session) follow(ctx context.Context) error {
	visible, err := store.Visible(ctx, s.conn)
	if err != nil {
		return err
	}
	var ended job.Buckets
	for b, before := range s.gate.earlier {
		now, all := visible.Below(s.gate.since[b])
		ended[b] = !now.Equal(before)
		s.gate.earlier[b] = now
		if all {
			delete(s.gate.earlier, b)
		}
	}
	if ended != none {
		s.Hub.Want(ended)
	}
	return nil
}

// letGo has writers notify no more what is too loud. It is read on the cycle from now on.
func (s *session) letGo(ctx context.Context, loud job.Buckets) error {
	s.metrics.toBusy.Add(float64(loud.Len()))
	s.disarm(loud)
	last := s.tended.Load()
	s.settle(last.watched, last.kept)
	return s.pauseIfRefused(ctx, store.Unlock(ctx, s.conn, store.Locks{Rows: loud}))
}

// disarm ceases to rely on notices, before the locks are given back.
func (s *session) disarm(buckets job.Buckets) {
	s.Hub.Disarm(buckets)
	s.gate.held.Rows = s.gate.held.Rows.Without(buckets)
	for b, in := range buckets {
		if in {
			delete(s.gate.earlier, byte(b))
		}
	}
}

var none, every = job.Buckets{}, job.Buckets{}.Complement()
