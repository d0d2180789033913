package bus

import (
	"context"
	"time"

	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// The gate: the database notifies only what somebody watches, for NOTIFY has commits wait for one another. Where the
// session holds the shared lock of a bucket, the triggers notify every change of its jobs; where nobody does, a writer
// gets the lock for itself, gives it back at once, and says nothing.
//
// A transaction that found nobody may still be under way when the session takes the lock. So after that the session asks
// which are. Later ones tell all they do. What the earlier ones do is read as soon as they have ended; what they tell is
// not believed, for it may be half of it. So nothing is missed, and nobody waits for anybody.

// gate is what the session holds. It belongs to the goroutine of the session.
type gate struct {
	rows, items job.Buckets                // the buckets whose locks are held
	since       [len(job.Buckets{})]uint64 // for rows: transactions from this one on tell all they do
	earlier     map[byte]job.Visibility    // for rows: which of those before had ended when last seen; not there if all had
}

// half tells whether the transaction of a notice may have changed the job before it began to tell.
func (g *gate) half(n job.Notice) bool {
	b := n.Job.Bucket()
	return g.rows[b] && n.XID < g.since[b]
}

// tend takes the locks of what is watched and not too loud, and has read what earlier transactions did.
func (s *session) tend(ctx context.Context) error {
	jobs := s.Hub.Watched()
	watched := jobs.Buckets()
	if missing := watched.Without(s.gate.items); missing != none {
		held, err := store.TryLocks(ctx, s.conn, store.ItemLocks, missing)
		if err != nil {
			return err
		}
		s.gate.items = s.gate.items.Union(held)
	}
	var held job.Buckets
	if missing := s.load.tellable(time.Now(), jobs).Without(s.gate.rows); missing != none {
		var err error
		if held, err = store.TryLocks(ctx, s.conn, store.RowLocks, missing); err != nil {
			return err
		}
	}
	if held != none || len(s.gate.earlier) > 0 {
		if err := s.arm(ctx, held); err != nil {
			return err
		}
	}
	s.observe()
	return nil
}

// observe notes whether something is left to tend.
func (s *session) observe() {
	watched := s.Hub.Watched().Buckets()
	unarmed := watched.Without(s.gate.rows)
	s.unsettled.Store(len(s.gate.earlier) > 0 || unarmed != none || watched.Without(s.gate.items) != none)
	s.metrics.armed.Set(float64(s.gate.rows.Len()))
	s.metrics.busy.Set(float64(unarmed.Len()))
}

func (s *session) unlock(ctx context.Context, class store.Class, buckets job.Buckets) error {
	if buckets == none {
		return nil
	}
	return store.Unlock(ctx, s.conn, class, buckets)
}

// arm begins to rely on notices of the buckets whose locks have been taken, and has the jobs read of those that earlier
// transactions may have changed that have ended by now.
func (s *session) arm(ctx context.Context, taken job.Buckets) (err error) {
	var since uint64
	if taken != none {
		if since, err = store.NextXID(ctx, s.conn); err != nil {
			return err
		}
	}
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
	if taken == none {
		return nil
	}
	under, all := visible.Below(since)
	for b, in := range taken {
		if !in {
			continue
		}
		s.gate.rows[b], s.gate.since[b] = true, since
		if !all {
			s.gate.earlier[byte(b)] = under
		}
	}
	s.Hub.Arm(taken)
	s.metrics.toArmed.Add(float64(taken.Len()))
	return nil
}

// letGo has writers notify no more what is too loud. It is read on the cycle from now on.
func (s *session) letGo(ctx context.Context, loud job.Buckets) error {
	s.metrics.toBusy.Add(float64(loud.Len()))
	s.disarm(loud)
	s.observe()
	return s.unlock(ctx, store.RowLocks, loud)
}

// release gives the locks back of what is not watched any more.
func (s *session) release(ctx context.Context) error {
	watched := s.Hub.Watched().Buckets()
	rows, items := s.gate.rows.Without(watched), s.gate.items.Without(watched)
	s.disarm(rows) // a job that comes between is read once more
	s.gate.items = s.gate.items.Without(items)
	s.observe()
	if err := s.unlock(ctx, store.RowLocks, rows); err != nil {
		return err
	}
	return s.unlock(ctx, store.ItemLocks, items)
}

// disarm ceases to rely on notices, before the locks are given back.
func (s *session) disarm(buckets job.Buckets) {
	s.Hub.Disarm(buckets)
	s.gate.rows = s.gate.rows.Without(buckets)
	for b, in := range buckets {
		if in {
			delete(s.gate.earlier, byte(b))
		}
	}
}

var none, every = job.Buckets{}, job.Buckets{}.Complement()
