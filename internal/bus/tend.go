package bus

import (
	"context"
	"time"

	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// tended is what the session last did about its locks, for the reader to see whether it has to again.
type tended struct {
	watched, kept job.Buckets // were at that time
	left          bool        // something was left to do
}

const (
	// itemPatience is how long the lock of items is tried, the first times at once and then itemPause apart: what is told
	// meanwhile is lost. Writers have it for a moment only, a processor permitting.
	itemPatience = 50 * time.Millisecond
	itemPause    = time.Millisecond
	atOnce       = 8
	// Locks that the database refused are asked for again after firstPause, and twice as long each time, up to mostPause:
	// where there is no room for them, there is none for others while we try.
	firstPause = 5 * time.Second
	mostPause  = 5 * time.Minute
)

// tend takes the locks of what is watched and not too loud, gives back those of what is not there any more, and has
// read what earlier transactions did.
func (s *session) tend(ctx context.Context) error {
	watched, kept := s.Hub.Watched()
	if time.Now().After(s.resume) {
		err := s.tendLocks(ctx, watched, kept)
		if err == nil {
			s.pause = 0
		}
		if err = s.pauseIfRefused(ctx, err); err != nil {
			return err
		}
	}
	s.settle(watched, kept)
	return nil
}

// pauseIfRefused makes a pause without any locks of the database's refusal: its table of locks is full, to which ours add,
// or a right is gone. Other errors are returned, which ends the session, and so does a refusal to take locks back.
func (s *session) pauseIfRefused(ctx context.Context, err error) error {
	if !store.Refused(err) || s.conn.IsClosed() {
		return err
	}
	s.pause = min(max(firstPause, 2*s.pause), mostPause)
	s.resume = time.Now().Add(s.pause)
	s.refused.Do(func() {
		s.Log.Warn("locks refused, so rows are read on the cycle and items are not told", "error", err, "pause", s.pause)
	})
	s.disarm(s.gate.held.Rows)
	s.gate.held = store.Locks{}
	return store.UnlockAll(ctx, s.conn)
}

func (s *session) tendLocks(ctx context.Context, watched, kept job.Buckets) error {
	if err := s.release(ctx, kept); err != nil {
		return err
	}
	if len(s.gate.earlier) > 0 {
		if err := s.follow(ctx); err != nil {
			return err
		}
	}
	var taken job.Buckets
	wanted := store.Locks{Rows: s.load.tellable(time.Now(), watched, s.gate.held.Rows).Without(s.gate.held.Rows), Items: kept.Without(s.gate.held.Items)}
	start := time.Now()
	for try := 0; wanted != (store.Locks{}); try++ {
		held, err := store.TryLocks(ctx, s.conn, wanted)
		if err != nil {
			return err
		}
		taken = taken.Union(held.Rows)
		s.gate.held.Items = s.gate.held.Items.Union(held.Items)
		wanted = store.Locks{Items: wanted.Items.Without(held.Items).Without(s.gate.denied)} // rows are read meanwhile
		if time.Since(start) > itemPatience || try >= atOnce && !sleep(ctx, itemPause) {
			break
		}
	}
	s.gate.denied = kept.Without(s.gate.held.Items)
	if taken == none {
		return nil
	}
	return s.arm(ctx, taken)
}

// release gives the locks back of what is not there any more.
func (s *session) release(ctx context.Context, kept job.Buckets) error {
	gone := store.Locks{Rows: s.gate.held.Rows.Without(kept), Items: s.gate.held.Items.Without(kept)}
	if gone == (store.Locks{}) {
		return nil
	}
	last := *s.tended.Load()
	last.kept = last.kept.Without(gone.Rows).Without(gone.Items) // who comes between has them taken again
	s.tended.Store(&last)
	s.disarm(gone.Rows)
	s.gate.held.Items = s.gate.held.Items.Without(gone.Items)
	return store.Unlock(ctx, s.conn, gone)
}

// settle notes what was done.
func (s *session) settle(watched, kept job.Buckets) {
	unarmed := watched.Without(s.gate.held.Rows)
	left := len(s.gate.earlier) > 0 || unarmed != none || kept.Without(s.gate.held.Items) != none || s.load.strained()
	s.tended.Store(&tended{watched, kept, left})
	s.metrics.armed.Set(float64(s.gate.held.Rows.Len()))
	s.metrics.busy.Set(float64(unarmed.Len()))
}
