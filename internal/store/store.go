// Package store holds the SQL that asks. It stands between the database and whoever needs a row: the bus for its
// topics, the JSON state, the command line.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"jobprogress/internal/job"
)

// Store reads jobs over a pool. Its methods may be called from any goroutine.
type Store struct{ pool *pgxpool.Pool }

// Open makes a pool of at most maxConns connections for the database of url and a Store on it, without connecting.
// An empty url means the PG* variables.
func Open(url string, maxConns int32) (*Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	configure(config.ConnConfig)
	config.MaxConns = maxConns
	config.MinConns, config.MinIdleConns = 0, 0
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return &Store{pool}, nil
}

// connectTimeout bounds an attempt to connect, also to a host that does not answer at all.
const connectTimeout = 5 * time.Second

func configure(config *pgx.ConnConfig) {
	// Prepared statements don't survive a transaction pooler; sending the text each time costs a parse.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if config.ConnectTimeout == 0 || config.ConnectTimeout > connectTimeout {
		config.ConnectTimeout = connectTimeout
	}
	// Not a standby, which knows neither NOTIFY nor the newest state, and not what was a primary until a moment ago.
	config.ValidateConnect = validatePrimary
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "jobprogress"
	}
}

// validatePrimary refuses a server that can't notify.
func validatePrimary(ctx context.Context, conn *pgconn.PgConn) error {
	result, err := conn.Exec(ctx, `select pg_is_in_recovery(), current_setting('transaction_read_only')`).ReadAll()
	if err != nil {
		return err
	}
	row := result[0].Rows[0]
	switch {
	case string(row[0]) == "t":
		return errors.New("the server is a standby, which knows no notifications: name the primary in DATABASE_URL and LISTEN_DATABASE_URL")
	case string(row[1]) == "on":
		return errors.New("the session is read-only, and can't notify: name a primary that takes writes, or set default_transaction_read_only = off for this role")
	}
	return nil
}

// Reset gives up the connections that there are. What is read from now on comes over new ones.
func (s *Store) Reset() { s.pool.Reset() }

// Close ends the pool once its connections are idle.
func (s *Store) Close() { s.pool.Close() }

const snapshotSQL = `
select id::text, visible, found, coalesce(account_id, ''), coalesce(type, ''), coalesce(status, ''), progress,
  coalesce(error, ''), created_at, started_at, completed_at, updated_at
from jobprogress.snapshot($1::text[]::uuid[])`

// Snapshot reads the rows of the jobs in one statement: one Snapshot for each id, in no order.
func (s *Store) Snapshot(ctx context.Context, ids []job.ID) ([]job.Snapshot, error) {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	rows, err := s.pool.Query(ctx, snapshotSQL, texts)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	snapshots, err := pgx.CollectRows(rows, scanSnapshot)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", explain(err))
	}
	return snapshots, nil
}

func scanSnapshot(row pgx.CollectableRow) (job.Snapshot, error) {
	var s job.Snapshot
	var visible, account, status, message string
	var progress []byte
	err := row.Scan(&s.ID, &visible, &s.Found, &account, &s.Type, &status, &progress, &message,
		&s.CreatedAt, &s.StartedAt, &s.CompletedAt, &s.UpdatedAt)
	if err != nil {
		return s, err
	}
	for _, at := range []*time.Time{s.CreatedAt, s.StartedAt, s.CompletedAt, s.UpdatedAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	s.State = job.NewState(account, status, progress, message)
	s.Visible, err = job.ParseVisibility(visible)
	return s, err
}

const sealKeySQL = `select seal_key from jobprogress.snapshot(array[null]::uuid[])`

// SealKey reads the key that seals the notices of this database's functions. It takes the rights that Snapshot takes.
func (s *Store) SealKey(ctx context.Context) ([]byte, error) {
	rows, err := s.pool.Query(ctx, sealKeySQL)
	if err != nil {
		return nil, fmt.Errorf("read seal key: %w", err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("read seal key: %w", explain(err))
	}
	return key, nil
}

// Notify sends a notification, and tells how full the server's queue of notifications is: 0 to 1. At 1, transactions
// that notify fail.
func (s *Store) Notify(ctx context.Context, channel, payload string) (queueUsage float64, err error) {
	row := s.pool.QueryRow(ctx, `select pg_notification_queue_usage() from pg_notify($1, $2)`, channel, payload)
	if err := row.Scan(&queueUsage); err != nil {
		return 0, fmt.Errorf("notify %q: %w", channel, err)
	}
	return queueUsage, nil
}
