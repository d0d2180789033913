package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/job"
)

// Class is the first key of an advisory lock; the second is the bucket. sql/install.sql has the same numbers.
type Class int32

// The locks that the triggers and functions of the database try before they notify.
const (
	RowLocks  Class = 1785684592
	ItemLocks Class = 1785684593
)

const tryLocksSQL = `select bucket from unnest($2::int[]) as wanted (bucket) where pg_try_advisory_lock_shared($1, bucket)`

// TryLocks takes the shared locks of a class for the session, and returns which it got: one that a writer has at the
// moment is not to be had.
func TryLocks(ctx context.Context, conn *pgx.Conn, class Class, buckets job.Buckets) (held job.Buckets, err error) {
	rows, err := conn.Query(ctx, tryLocksSQL, class, keys(buckets))
	if err != nil {
		return held, fmt.Errorf("take locks: %w", err)
	}
	var bucket int32
	_, err = pgx.ForEachRow(rows, []any{&bucket}, func() error {
		held[bucket] = true
		return nil
	})
	if err != nil {
		return held, fmt.Errorf("take locks: %w", err)
	}
	return held, nil
}

const unlockSQL = `select pg_advisory_unlock_shared($1, bucket) from unnest($2::int[]) as held (bucket)`

// Unlock gives locks back that TryLocks took.
func Unlock(ctx context.Context, conn *pgx.Conn, class Class, buckets job.Buckets) error {
	if _, err := conn.Exec(ctx, unlockSQL, class, keys(buckets)); err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

func keys(buckets job.Buckets) (keys []int32) {
	for b, in := range buckets {
		if in {
			keys = append(keys, int32(b))
		}
	}
	return keys
}

// NextXID is a transaction id above all that were given out before. It takes one.
func NextXID(ctx context.Context, conn *pgx.Conn) (xid uint64, err error) {
	if err := conn.QueryRow(ctx, `select pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
		return 0, fmt.Errorf("take a transaction id: %w", err)
	}
	return xid, nil
}

// Visible tells which transactions have ended by now, as far as the session sees.
func Visible(ctx context.Context, conn *pgx.Conn) (job.Visibility, error) {
	var text string
	if err := conn.QueryRow(ctx, `select pg_current_snapshot()::text`).Scan(&text); err != nil {
		return job.Visibility{}, fmt.Errorf("ask which transactions have ended: %w", err)
	}
	return job.ParseVisibility(text)
}
