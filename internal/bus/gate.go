package bus

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// gate is the lock set of the reader's session: what is notified. It belongs to the reader, and goes with the session.
type gate struct {
	held  store.Locks
	mark  [len(job.Buckets{})]uint64 // the first transaction id whose changes are all notified
	pause time.Duration              // without locks, which the database refused; 0 if it did not
	until time.Time                  // when the pause ends
}

const (
	// Locks that the database refused are asked for again after firstPause, which doubles up to mostPause:
	// where there is no room for them, there is none for others while we try.
	firstPause = 5 * time.Second
	mostPause  = 5 * time.Minute
)

// notified are the buckets of which all changes that a read with this xmin did not see will be notified.
func (g *gate) notified(xmin uint64) (buckets job.Buckets) {
	for b, in := range g.held.Buckets {
		buckets[b] = in && xmin >= g.mark[b]
	}
	return buckets
}

// adjust takes and releases locks until the lock set is wanted. A lock that a writer tries at this moment is not to be had.
// An error that the session outlives is a refusal: all locks are given back for a while.
func (g *gate) adjust(ctx context.Context, conn *pgx.Conn, feed hub.Feed, wanted store.Locks) error {
	if time.Now().Before(g.until) {
		return nil
	}
	err := g.change(ctx, conn, feed, wanted)
	if err == nil {
		g.pause = 0
		return nil
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); !ok || conn.IsClosed() || store.SessionEnded(err) {
		return err
	}
	feed.Release(g.held.Buckets)
	g.held = store.Locks{}
	g.pause = min(max(firstPause, 2*g.pause), mostPause)
	g.until = time.Now().Add(g.pause)
	if err := store.UnlockAll(ctx, conn); err != nil {
		return err // the end of the session gives them back
	}
	return refused{err}
}

func (g *gate) change(ctx context.Context, conn *pgx.Conn, feed hub.Feed, wanted store.Locks) error {
	if gone := g.held.Without(wanted); gone != (store.Locks{}) {
		feed.Release(gone.Buckets) // before writers can find nobody
		g.held = g.held.Without(gone)
		if err := store.Unlock(ctx, conn, gone); err != nil {
			return err
		}
	}
	missing := wanted.Without(g.held)
	if missing == (store.Locks{}) {
		return nil
	}
	got, mark, err := store.TryLocks(ctx, conn, missing)
	if err != nil {
		return err
	}
	g.held.Serving = g.held.Serving || got.Serving
	for b, in := range got.Buckets {
		if in {
			g.held.Buckets[b], g.mark[b] = true, mark
		}
	}
	return nil
}

// refused is an error of the database about locks: its lock table is full, or a right is missing.
type refused struct{ error }
