package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
)

// Attachment is what install has written down: what is attached, and how.
type Attachment struct {
	Version int
	Table   string // qualified and quoted
	Gate    string // on or off
	ID      string // name of the column
	IDType  job.IDType
	Deleted job.Deleted
	Columns map[string]string // types of the columns that are read, at the time
	Chosen  map[string]string // what was chosen, the rest being that of the stand-in or the preset

	expressions map[string]string // by what they are: owner, status ...
}

// flags are those of install whose expressions name the column.
func (a Attachment) flags(column string) (flags []string) {
	for _, what := range slices.Sorted(maps.Keys(a.expressions)) {
		if strings.Contains(a.expressions[what], column) {
			flags = append(flags, "--"+strings.ReplaceAll(what, "_", "-"))
		}
	}
	return flags
}

// ReadAttachment reads it. It returns a VersionError where there is none, but an earlier version.
func ReadAttachment(ctx context.Context, conn *pgx.Conn) (a Attachment, err error) {
	var text string
	err = conn.QueryRow(ctx, `select jobprogress.attachment()::text`).Scan(&text)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42883" {
		return a, errOutdated // version 1 has no such function
	}
	if err != nil {
		return a, fmt.Errorf("check what is installed: %w", explain(err))
	}
	var all map[string]any
	if err := errors.Join(json.Unmarshal([]byte(text), &a), json.Unmarshal([]byte(text), &all)); err != nil {
		return a, fmt.Errorf("check what is installed: %w. Run jobprogress install", err)
	}
	a.expressions = make(map[string]string)
	for _, what := range []string{"id", "owner", "type", "status", "progress", "error", "run", "created_at", "started_at", "completed_at", "updated_at"} {
		if expression, ok := all[what].(string); ok {
			a.expressions[what] = expression
		}
	}
	return a, nil
}

// JobTable is what the server must know of the table; zero if an earlier version is installed.
func (a Attachment) JobTable() job.Table { return job.Table{IDType: a.IDType, Deleted: a.Deleted} }

// sampled is how many jobs sample reads, at most.
const sampled = 1000

// sample reads some of the jobs there are.
func sample(ctx context.Context, conn *pgx.Conn) ([]job.Snapshot, error) {
	ids, err := someJobs(ctx, conn, sampled)
	if err != nil {
		return nil, fmt.Errorf("read some jobs: %w", err)
	}
	rows, err := conn.Query(ctx, snapshotSQL, ids, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read some jobs: %w", err)
	}
	jobs, _, err := collect(rows)
	return jobs, err
}

// someJobs are ids of jobs, at most so many.
func someJobs(ctx context.Context, conn *pgx.Conn, most int) ([]string, error) {
	rows, err := conn.Query(ctx, `select jobprogress.some_jobs($1)`, most)
	if err != nil {
		return []string{}, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return append([]string{}, ids...), err
}
