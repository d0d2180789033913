package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/job"
)

// LockClass is the first key of all our advisory locks. The second is a bucket, or one of those below. sql/install.sql
// has the same numbers.
const (
	LockClass int32 = 1785684592

	servingLock int32 = 256 // shared: a server serves this database
	sweepLock   int32 = 257 // exclusive: a server sweeps the item log
)

// Locks are shared advisory locks that writers try before they notify.
type Locks struct {
	Buckets job.Buckets // jobs of these are notified
	Serving bool        // items are kept
}

func (l Locks) keys() (keys []int32) {
	for b, in := range l.Buckets {
		if in {
			keys = append(keys, int32(b))
		}
	}
	if l.Serving {
		keys = append(keys, servingLock)
	}
	return keys
}

// Without is the set of those locks that are not in m.
func (l Locks) Without(m Locks) Locks {
	return Locks{l.Buckets.Without(m.Buckets), l.Serving && !m.Serving}
}

// TryLocks takes shared locks for the session, and returns those it got: one that a writer tries at this moment is not to
// be had. mark is a transaction id taken afterwards: transactions that tried before have lower ones.
func TryLocks(ctx context.Context, conn *pgx.Conn, wanted Locks) (got Locks, mark uint64, err error) {
	batch := new(pgx.Batch)
	batch.Queue(`select key from unnest($2::int[]) as key where pg_try_advisory_lock_shared($1, key)`, LockClass, wanted.keys())
	// Not pg_snapshot_xmax, which is not above transactions that have an id and have not ended.
	batch.Queue(`select pg_current_xact_id()::text::bigint`)
	results := conn.SendBatch(ctx, batch)
	defer results.Close()
	rows, err := results.Query()
	if err != nil {
		return got, 0, fmt.Errorf("take locks: %w", err)
	}
	var key int32
	_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
		if key == servingLock {
			got.Serving = true
		} else {
			got.Buckets[key] = true
		}
		return nil
	})
	if err == nil {
		err = results.QueryRow().Scan(&mark)
	}
	if err != nil {
		return got, 0, fmt.Errorf("take locks: %w", err)
	}
	return got, mark, nil
}

// Unlock gives locks back that TryLocks took.
func Unlock(ctx context.Context, conn *pgx.Conn, held Locks) error {
	_, err := conn.Exec(ctx, `select pg_advisory_unlock_shared($1, key) from unnest($2::int[]) as key`, LockClass, held.keys())
	if err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

// UnlockAll gives all locks of the session back.
func UnlockAll(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `select pg_advisory_unlock_all()`); err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}
