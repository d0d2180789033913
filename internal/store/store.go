// Package store holds the SQL that asks. It stands between the database and whoever needs a row: the bus for its
// topics, the JSON state, the command line.
package store

import (
	"context"
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
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "jobprogress"
	}
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

// Notify sends a notification on the channel of the bus.
func (s *Store) Notify(ctx context.Context, channel, payload string) error {
	if _, err := s.pool.Exec(ctx, `select pg_notify($1, $2)`, channel, payload); err != nil {
		return fmt.Errorf("notify %q: %w", channel, err)
	}
	return nil
}
