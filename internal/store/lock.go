package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
)

// Locks are advisory locks that the trigger and functions of the database try before they notify: a bucket of Rows is
// one whose changed rows are notified, one of Items one whose items are.
type Locks struct{ Rows, Items job.Buckets }

// The first keys of the locks; the second is the bucket. sql/install.sql has the same numbers.
const (
	RowLocks  int32 = 1785684592
	ItemLocks int32 = 1785684593
)

// keys are the keys of the locks.
func (l Locks) keys() (classes, buckets []int32) {
	for _, of := range []struct {
		class   int32
		buckets *job.Buckets
	}{{RowLocks, &l.Rows}, {ItemLocks, &l.Items}} {
		for b, in := range of.buckets {
			if in {
				classes, buckets = append(classes, of.class), append(buckets, int32(b))
			}
		}
	}
	return classes, buckets
}

const tryLocksSQL = `select class, bucket from unnest($1::int[], $2::int[]) as wanted (class, bucket) where pg_try_advisory_lock_shared(class, bucket)`

// TryLocks takes shared locks for the session, and returns which it got: one that a writer has at the moment is not to
// be had. After an error the session may hold some.
func TryLocks(ctx context.Context, conn *pgx.Conn, wanted Locks) (held Locks, err error) {
	classes, buckets := wanted.keys()
	rows, err := conn.Query(ctx, tryLocksSQL, classes, buckets)
	if err != nil {
		return held, fmt.Errorf("take locks: %w", err)
	}
	var class, bucket int32
	_, err = pgx.ForEachRow(rows, []any{&class, &bucket}, func() error {
		if class == RowLocks {
			held.Rows[bucket] = true
		} else {
			held.Items[bucket] = true
		}
		return nil
	})
	if err != nil {
		return held, fmt.Errorf("take locks: %w", err)
	}
	return held, nil
}

const unlockSQL = `select pg_advisory_unlock_shared(class, bucket) from unnest($1::int[], $2::int[]) as held (class, bucket)`

// Unlock gives locks back that TryLocks took.
func Unlock(ctx context.Context, conn *pgx.Conn, held Locks) error {
	classes, buckets := held.keys()
	if len(buckets) == 0 {
		return nil
	}
	if _, err := conn.Exec(ctx, unlockSQL, classes, buckets); err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

// Refused tells whether the database refused to do what an error says: it has no room (class 53), there is a limit (54),
// or a right is missing.
func Refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "54") || pg.Code == "42501")
}

// UnlockAll gives all locks of the session back.
func UnlockAll(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `select pg_advisory_unlock_all()`); err != nil {
		return fmt.Errorf("give locks back: %w", err)
	}
	return nil
}

// Mark tells which transactions have ended by now, and takes a transaction id: all that begin from now on get a higher
// one.
func Mark(ctx context.Context, conn *pgx.Conn) (visible job.Visibility, xid uint64, err error) {
	var text string
	if err := conn.QueryRow(ctx, `select pg_current_snapshot()::text, pg_current_xact_id()::text::bigint`).Scan(&text, &xid); err != nil {
		return visible, 0, fmt.Errorf("take a transaction id: %w", err)
	}
	visible, err = job.ParseVisibility(text)
	return visible, xid, err
}

// Visible tells which transactions have ended by now.
func Visible(ctx context.Context, conn *pgx.Conn) (job.Visibility, error) {
	var text string
	if err := conn.QueryRow(ctx, `select pg_current_snapshot()::text`).Scan(&text); err != nil {
		return job.Visibility{}, fmt.Errorf("ask which transactions have ended: %w", err)
	}
	return job.ParseVisibility(text)
}
