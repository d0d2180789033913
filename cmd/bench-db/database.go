package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
	"jobprogress/sql"
)

// database is one with a job table, and who uses it besides the writers.
type database struct {
	name    string
	river   bool                                                // the table is River's, else the stand-in's
	attach  func(ctx context.Context, databaseURL string) error // nil: nothing
	jobs    int                                                 // in the table
	serve   bool                                                // a server runs
	watched int                                                 // jobs, each by one viewer
	listen  string                                              // a channel on which somebody else listens; "": nobody

	url        string // "": not prepared yet
	admin      *pgx.Conn
	service    *service
	audience   *audience
	stopListen func() error
}

func install(gate string) func(context.Context, string) error {
	return func(ctx context.Context, url string) error {
		return store.Install(ctx, url, store.Installation{Table: "job", Gate: gate})
	}
}

// installBesideNothing installs, and creates a function that takes what item() takes and does nothing.
func installBesideNothing(ctx context.Context, url string) error {
	if err := install("on")(ctx, url); err != nil {
		return err
	}
	return execute(ctx, url, `create function nothing(job_id uuid, item_id text, item_kind text, status text, label text)
		returns void language plpgsql as $$ begin end $$`)
}

func installRiver(ctx context.Context, url string) error {
	return store.Install(ctx, url, store.Installation{Preset: "river"})
}

// attachPlain attaches what most people write first.
func attachPlain(ctx context.Context, url string) error {
	return execute(ctx, url, `
		create function notify_job() returns trigger language plpgsql as $$
		begin
			perform pg_notify('job', json_build_object('id', new.id, 'status', new.status, 'progress', new.progress)::text);
			return null;
		end $$;
		create trigger notify_job after update on job for each row
		when (old.status is distinct from new.status or old.progress is distinct from new.progress)
		execute function notify_job()`)
}

const account = "00000000-0000-4000-8000-00000000000a"

// prepare creates the database, once, and starts who uses it.
func (d *database) prepare(ctx context.Context, b *bench) (err error) {
	if d.url != "" {
		return nil
	}
	name := "bench_" + d.name
	if err := execute(ctx, b.server.URL, "create database "+name); err != nil {
		return err
	}
	d.url = pgtest.WithDatabase(b.server.URL, name)
	if err := d.fill(ctx); err != nil {
		return err
	}
	if d.attach != nil {
		if err := d.attach(ctx, d.url); err != nil {
			return err
		}
	}
	if d.admin, err = pgx.Connect(ctx, d.url); err != nil {
		return err
	}
	if d.listen != "" {
		if d.stopListen, err = listen(ctx, d.url, d.listen, func(context.Context, *pgx.Conn, string) error { return nil }); err != nil {
			return err
		}
	}
	if d.serve {
		if d.service, err = startService(b.program, d.url); err != nil {
			return err
		}
	}
	return d.watch(ctx)
}

// fill makes the table and its jobs, with room on each page for the versions of a row, as any table gets that is updated
// for a while.
func (d *database) fill(ctx context.Context) error {
	if d.river {
		pool, err := pgxpool.New(ctx, d.url)
		if err != nil {
			return err
		}
		defer pool.Close()
		migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
		if err != nil {
			return err
		}
		if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
			return err
		}
		return execute(ctx, d.url, `alter table river_job set (fillfactor = 50); insert into river_job (state, kind, max_attempts, args, attempted_at)
			select 'running', 'sync', 3, '{"account_id": "`+account+`"}', now() from generate_series(1, `+fmt.Sprint(d.jobs)+`); analyze river_job`)
	}
	return execute(ctx, d.url, sql.Job+`; alter table job set (fillfactor = 50);
		insert into job (id, account_id, type, status, progress)
		select `+fmt.Sprintf(jobID, "i")+`, '`+account+`', 'matching', 'running', '{"total": 9000000000000000}' from generate_series(1, `+fmt.Sprint(d.jobs)+`) as i;
		analyze job`)
}

// table is the name of its job table.
func (d *database) table() string {
	if d.river {
		return "river_job"
	}
	return "job"
}

// watch has the first jobs watched, as many as are to be.
func (d *database) watch(ctx context.Context) error {
	if d.watched == 0 {
		return nil
	}
	d.audience = newAudience(d.service.url)
	rows, err := d.admin.Query(ctx, `select `+fmt.Sprintf(jobID, "i")+`::text from generate_series(1, $1) as i`, d.watched)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	return d.audience.watch(ctx, ids)
}

// close ends who uses the database. It may be called again.
func (d *database) close() {
	if d.audience != nil {
		d.audience.close()
	}
	if d.service != nil {
		d.service.stop()
	}
	if d.stopListen != nil {
		d.stopListen()
	}
	if d.admin != nil {
		d.admin.Close(context.Background())
	}
}

// exactTimeout is generous: what is not there by then won't come.
const exactTimeout = 20 * time.Second

// exact waits until every viewer shows its row's last state, and with items all items of its job. It returns how many
// do not.
func (d *database) exact(ctx context.Context, items bool) (inexact int, err error) {
	if d.audience == nil {
		return 0, nil
	}
	query := `select id::text, coalesce((progress ->> 'done')::bigint, 0), 0 from job`
	if items {
		query = `select job.id::text, coalesce((progress ->> 'done')::bigint, 0), coalesce(items.n, 0)
			from job left join (select job, count(distinct item)::int as n from jobprogress.item_log group by job) as items on items.job = job.id::text`
	}
	rows, err := d.admin.Query(ctx, query)
	if err != nil {
		return 0, err
	}
	last := make(map[string]shown)
	var id string
	var one shown
	if _, err := pgx.ForEachRow(rows, []any{&id, &one.done, &one.items}, func() error { last[id] = one; return nil }); err != nil {
		return 0, err
	}
	for end := time.Now().Add(exactTimeout); ; time.Sleep(10 * time.Millisecond) {
		if inexact = d.audience.inexact(last, items); inexact == 0 || time.Now().After(end) || ctx.Err() != nil {
			return inexact, ctx.Err()
		}
	}
}

// execute runs statements, each in a transaction of its own if "; " stands between them.
func execute(ctx context.Context, url, text string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for one := range strings.SplitSeq(text, "; ") { // vacuum and alter system refuse to run with others
		if _, err := conn.PgConn().Exec(ctx, one).ReadAll(); err != nil {
			return fmt.Errorf("%.40s: %w", one, err)
		}
	}
	return nil
}

// queryValue scans the one value that a query returns.
func queryValue(ctx context.Context, url, query string, value any) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, query).Scan(value)
}
