package sql_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// BenchmarkReadOf1000Jobs compares what a mapping costs: a read of a thousand jobs of the stand-in's table, and of River's.
func BenchmarkReadOf1000Jobs(b *testing.B) {
	standIn := pgtest.New(b)
	river := pgtest.NewEmpty(b)
	migrator, err := rivermigrate.New(riverpgxv5.New(pgtest.Pool(b, river)), nil)
	if err == nil {
		_, err = migrator.Migrate(b.Context(), rivermigrate.DirectionUp, nil)
	}
	if err == nil {
		err = store.Install(b.Context(), river, store.Installation{Preset: "river"})
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, table := range []struct{ name, url, fill, ids string }{
		{"stand-in", standIn, `insert into job (id, account_id, type, status, progress) select gen_random_uuid(), $1, 'matching', 'running', '{"total": 10, "done": 3}' from generate_series(1, 1000)`,
			`select id::text from job`},
		{"river", river, `insert into river_job (state, kind, max_attempts, args, metadata, attempted_at) select 'running', 'sync', 3, jsonb_build_object('account_id', $1::text), '{"progress": {"total": 10, "done": 3}}', now() from generate_series(1, 1000)`,
			`select id::text from river_job`},
	} {
		b.Run(table.name, func(b *testing.B) {
			conn, err := store.Connect(b.Context(), table.url, "bench")
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(b.Context(), table.fill, ada); err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Exec(b.Context(), `analyze`); err != nil {
				b.Fatal(err)
			}
			if err := store.Prepare(b.Context(), conn); err != nil {
				b.Fatal(err)
			}
			rows, err := conn.Query(b.Context(), table.ids)
			if err != nil {
				b.Fatal(err)
			}
			ids, err := pgx.CollectRows(rows, pgx.RowTo[job.ID])
			if err != nil {
				b.Fatal(err)
			}
			requests := make([]job.Request, 1000)
			for i := range requests {
				requests[i].ID = ids[i]
			}
			for b.Loop() {
				if read, err := store.ReadJobs(b.Context(), conn, requests); err != nil || len(read.Jobs) != 1000 || read.Jobs[0].State.Progress.Done != 3 {
					b.Fatal(read, err)
				}
			}
		})
	}
}
