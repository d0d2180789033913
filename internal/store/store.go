// Package store holds the SQL that asks. It stands between the database and whatever needs a row: the bus for its
// topics, the JSON state, the command line.
package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"jobprogress/internal/job"
)

// Store reads jobs over a pool. Its methods may be called from any goroutine.
type Store struct{ pool *pgxpool.Pool }

// Open makes a pool of at most maxConns connections for the database of url and a Store on it, without connecting. url is
// asked for each connection: passwords change. An empty one means the PG* variables.
func Open(url func() string, maxConns int32) (*Store, error) {
	config, err := pgxpool.ParseConfig(url())
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	configure(config.ConnConfig)
	config.BeforeConnect = func(_ context.Context, connConfig *pgx.ConnConfig) error {
		now, err := pgxpool.ParseConfig(url()) // reads the password file, too
		if err != nil {
			return fmt.Errorf("parse database URL: %w", err)
		}
		configure(now.ConnConfig)
		*connConfig = *now.ConnConfig
		return nil
	}
	config.MaxConns = maxConns
	config.MinConns, config.MinIdleConns = 0, 0
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return &Store{pool}, nil
}

// Close ends the pool once its connections are idle.
func (s *Store) Close() { s.pool.Close() }

// Snapshot reads the rows of the jobs in one statement, without items: one Snapshot for each id, in no order.
func (s *Store) Snapshot(ctx context.Context, ids []job.ID) ([]job.Snapshot, error) {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	rows, err := s.pool.Query(ctx, snapshotSQL, texts, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	snapshots, _, err := collect(rows)
	return snapshots, err
}

// List reads the jobs of an account that it may watch now, without items, in the order of its list.
func (s *Store) List(ctx context.Context, account string) ([]job.Snapshot, error) {
	rows, err := s.pool.Query(ctx, listsSQL, []string{account})
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", err)
	}
	lists, err := collectLists(rows)
	if err != nil {
		return nil, err
	}
	unordered, err := s.Snapshot(ctx, lists[account])
	if err != nil {
		return nil, err
	}
	places := make(map[job.ID]int)
	for i, id := range lists[account] {
		places[id] = i
	}
	slices.SortFunc(unordered, func(a, b job.Snapshot) int { return places[a.ID] - places[b.ID] })
	return unordered, nil
}

const snapshotSQL = `
select snapshot, id, found, coalesce(owner, ''), coalesce(type, ''), coalesce(status, ''), coalesce(done, ''), coalesce(total, ''),
  coalesce(succeeded, ''), coalesce(failed, ''), coalesce(message, ''), coalesce(error, ''), created_at, started_at, completed_at, updated_at,
  coalesce(run, ''), all_items, items
from jobprogress.snapshot($1::text[], $2::text[], $3::text[])`

// collect scans rows of snapshotSQL. seen is the pg_snapshot in which they were read.
func collect(rows pgx.Rows) (snapshots []job.Snapshot, seen string, err error) {
	snapshots, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (job.Snapshot, error) {
		var s job.Snapshot
		var owner, status, done, total, succeeded, failed, message, reason string
		var items []byte
		err := row.Scan(&seen, &s.ID, &s.Found, &owner, &s.Type, &status, &done, &total, &succeeded, &failed, &message, &reason,
			&s.CreatedAt, &s.StartedAt, &s.CompletedAt, &s.UpdatedAt, &s.Run, &s.AllItems, &items)
		if err != nil {
			return s, err
		}
		for _, at := range []**time.Time{&s.CreatedAt, &s.StartedAt, &s.CompletedAt, &s.UpdatedAt} {
			if *at != nil {
				utc := (*at).UTC()
				*at = &utc
			}
		}
		s.State = job.NewState(owner, status, job.Progress{
			Done:      job.ParseCount(done),
			Total:     job.ParseCount(total),
			Succeeded: job.ParseCount(succeeded),
			Failed:    job.ParseCount(failed),
			Message:   message,
		}, reason)
		s.Items, err = job.ParseItems(items)
		return s, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("read jobs: %w", explain(err))
	}
	return snapshots, seen, nil
}
