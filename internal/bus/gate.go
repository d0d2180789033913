package bus

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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
	held    store.Locks
	since   [len(job.Buckets{})]uint64 // for rows: transactions from this one on tell all they do
	earlier map[byte]job.Visibility    // for rows: which of those before had ended when last seen; not there if all had
	pause   time.Time                  // before which no locks are asked for: the database refused
}

// half tells whether the transaction of a notice may have changed the job before it began to tell.
func (g *gate) half(n job.Notice) bool {
	b := n.Job.Bucket()
	return g.held.Rows[b] && n.XID < g.since[b]
}

// tended is what the session last did about its locks, for the reader to see whether it has to again.
type tended struct {
	watched, kept job.Buckets // were at that time
	left          bool        // something was left to do
}

const (
	// itemTries is how often the lock of items is tried at once: what is told of them meanwhile is lost. A writer has
	// it for a moment only.
	itemTries = 8
	// refusedPause is the time until locks are asked for again that the database refused.
	refusedPause = 5 * time.Second
)

// tend takes the locks of what is watched and not too loud, gives back those of what is not there any more, and has
// read what earlier transactions did.
func (s *session) tend(ctx context.Context) error {
	watched, kept := s.Hub.Watched()
	if time.Now().After(s.gate.pause) {
		err := s.tendLocks(ctx, watched, kept)
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
			// Its table of locks is full, to which ours add, or a right is gone. All is read on the cycle meanwhile.
			s.refused.Do(func() {
				s.Log.Warn("no locks, so rows are read on the cycle, and items are not told", "error", refused)
			})
			s.gate.pause = time.Now().Add(refusedPause)
			s.disarm(s.gate.held.Rows)
			s.gate.held.Items = none
			err = store.UnlockAll(ctx, s.conn)
		}
		if err != nil {
			return err
		}
	}
	s.settle(watched, kept)
	return nil
}

func (s *session) tendLocks(ctx context.Context, watched, kept job.Buckets) error {
	gone := store.Locks{Rows: s.gate.held.Rows.Without(kept), Items: s.gate.held.Items.Without(kept)}
	s.disarm(gone.Rows) // a job that comes between is read once more
	s.gate.held.Items = s.gate.held.Items.Without(gone.Items)
	if err := store.Unlock(ctx, s.conn, gone); err != nil {
		return err
	}
	if len(s.gate.earlier) > 0 {
		if err := s.follow(ctx); err != nil {
			return err
		}
	}
	var taken job.Buckets
	for try := range itemTries {
		missing := store.Locks{Items: kept.Without(s.gate.held.Items)}
		if try == 0 {
			missing.Rows = s.load.tellable(time.Now(), watched).Without(s.gate.held.Rows)
		}
		if missing == (store.Locks{}) {
			break
		}
		held, err := store.TryLocks(ctx, s.conn, missing)
		if err != nil {
			return err
		}
		s.gate.held.Items = s.gate.held.Items.Union(held.Items)
		taken = taken.Union(held.Rows)
	}
	if taken == none {
		return nil
	}
	return s.arm(ctx, taken)
}

// settle notes what was done.
func (s *session) settle(watched, kept job.Buckets) {
	unarmed := watched.Without(s.gate.held.Rows)
	left := len(s.gate.earlier) > 0 || unarmed != none || kept.Without(s.gate.held.Items) != none
	s.tended.Store(&tended{watched, kept, left})
	s.metrics.armed.Set(float64(s.gate.held.Rows.Len()))
	s.metrics.busy.Set(float64(unarmed.Len()))
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
	return store.Unlock(ctx, s.conn, store.Locks{Rows: loud})
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
