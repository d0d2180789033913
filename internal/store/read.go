package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
)

// Version is that of the SQL which this server works with. sql/install/published.sql has the same number.
const Version = 3

// Read is what one statement saw.
type Read struct {
	Jobs []job.Snapshot // one for each request, in no order
	Seen string         // the pg_snapshot in which they were read
	XMin uint64         // all transactions with lower ids had ended
}

// ReadJobs reads the rows of the jobs and their items in one statement. The session was made by Connect and Prepare.
func ReadJobs(ctx context.Context, conn *pgx.Conn, requests []job.Request) (Read, error) {
	ids, runs, seen := make([]string, len(requests)), make([]string, len(requests)), make([]string, len(requests))
	for i, r := range requests {
		ids[i], runs[i], seen[i] = string(r.ID), r.Run, r.Seen
	}
	rows, err := conn.Query(ctx, snapshotSQL, pgx.QueryExecModeCacheStatement, ids, runs, seen)
	if err != nil {
		return Read{}, fmt.Errorf("read jobs: %w", explain(err))
	}
	var read Read
	if read.Jobs, read.Seen, err = collect(rows); err != nil {
		return Read{}, err
	}
	xmin, _, _ := strings.Cut(read.Seen, ":")
	if read.XMin, err = strconv.ParseUint(xmin, 10, 64); err != nil {
		return Read{}, fmt.Errorf("read jobs: pg_snapshot %q: %w", read.Seen, err)
	}
	return read, nil
}

// ReadLists reads the lists of accounts: the ids of the jobs that each may watch now, in order.
func ReadLists(ctx context.Context, conn *pgx.Conn, accounts []string) (map[string][]job.ID, error) {
	rows, err := conn.Query(ctx, listsSQL, pgx.QueryExecModeCacheStatement, accounts)
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", explain(err))
	}
	return collectLists(rows)
}

const listsSQL = `select account, ids from jobprogress.lists($1)`

func collectLists(rows pgx.Rows) (map[string][]job.ID, error) {
	lists := make(map[string][]job.ID)
	var account string
	var ids []job.ID
	_, err := pgx.ForEachRow(rows, []any{&account, &ids}, func() error {
		lists[account] = ids
		ids = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", explain(err))
	}
	return lists, nil
}

// MayBeOneRow reports whether a read of many jobs may have failed because of one of them.
func MayBeOneRow(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code[:2] {
	case "22", "54", "P0", "XX": // bad data, too much of it, an error of somebody's function, a damaged page
		return true
	}
	return TimedOut(err)
}

// SessionEnded reports whether the database said that it ends the session: it stops, or somebody has it ended.
func SessionEnded(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Severity == "FATAL" || pg.Severity == "PANIC" || pg.Code == "25P03" || pg.Code[:2] == "08")
}

// TimedOut reports whether the database gave a statement up.
func TimedOut(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "57014"
}

// CheckInstalled reports what is wrong with what is installed: it is not there, not for this role, or of another version;
// and with tryRow, that no row of the table can be read. Of what is attached it returns as much as can be known.
func CheckInstalled(ctx context.Context, conn *pgx.Conn, tryRow bool) (Attachment, error) {
	attachment, err := ReadAttachment(ctx, conn)
	if err != nil {
		return attachment, err
	}
	switch installed := attachment.Version; {
	case installed > Version:
		return attachment, VersionError(fmt.Sprintf("this server is older than what is installed in the database (version %d, this server works with %d): upgrade the server", installed, Version))
	case installed < Version:
		return attachment, errOutdated
	}
	if !tryRow {
		return attachment, nil
	}
	ids, err := someJobs(ctx, conn, 1)
	if err != nil && !TimedOut(err) { // an empty table, or one that is slow to scan: at least the statement is tried
		return attachment, fmt.Errorf("check what is installed: %w", explain(err))
	}
	rows, err := conn.Query(ctx, snapshotSQL, ids, nil, nil)
	if err != nil {
		return attachment, fmt.Errorf("check what is installed: %w", explain(err))
	}
	_, _, err = collect(rows)
	return attachment, err
}

// VersionError says that server and database don't fit, and which of them is older.
type VersionError string

func (e VersionError) Error() string { return string(e) }

var errOutdated = VersionError(fmt.Sprintf("what is installed in the database is older than this server, which works with version %d: run jobprogress install on this database", Version))

// Notify sends a notification, and returns how full the database's queue of notifications is, 0 to 1: at 1, transactions
// that notify fail. It also returns how long that took, commit included. Only with write does the commit have something
// to flush, and to wait for.
func Notify(ctx context.Context, conn *pgx.Conn, channel, payload string, write bool) (queueUsage float64, took time.Duration, err error) {
	start := time.Now()
	row := conn.QueryRow(ctx, `select pg_notification_queue_usage(), case when $3 then pg_logical_emit_message(true, $1, '')::text end
		from pg_notify($1, $2)`, channel, payload, write)
	if err := row.Scan(&queueUsage, nil); err != nil {
		return 0, 0, fmt.Errorf("notify %q: %w", channel, err)
	}
	return queueUsage, time.Since(start), nil
}

// Sweep deletes items that no viewer will see any more, if no other server does so, and returns how many rows that were.
// The session keeps the right to sweep until it ends.
func Sweep(ctx context.Context, conn *pgx.Conn) (mine bool, deleted int64, err error) {
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1, $2)`, LockClass, sweepLock).Scan(&mine); err != nil || !mine {
		return false, 0, err
	}
	for next := ""; ; { // some jobs at a time
		var more *string
		var n int64
		if err := conn.QueryRow(ctx, `select next, deleted from jobprogress.sweep($1)`, next).Scan(&more, &n); err != nil {
			return true, deleted, fmt.Errorf("sweep items: %w", explain(err))
		}
		deleted += n
		if more == nil {
			return true, deleted, nil
		}
		next = *more
	}
}
