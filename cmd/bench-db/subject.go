package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
	"jobprogress/sql"
)

// subject is a way to attach to the job table, or not to, with a database of its own.
type subject struct {
	name    string
	attach  func(ctx context.Context, databaseURL string) error // nil: nothing
	serve   bool                                                // a server is there
	jobs    int                                                 // in the table
	watched int                                                 // of them, each by one viewer
	plain   bool                                                // somebody else listens

	url      string
	admin    *pgx.Conn
	service  *service
	audience *audience

	measured map[int]*measured // by writers
}

// measured is what the rounds gave.
type measured struct {
	commits, notices, reads []float64 // a second, one of each round
	processor               []float64 // of the database's, that the server takes; one of each round
	behind                  []time.Duration
	inexact                 int // viewers that did not end at the row's last state
}

func install(gate string) func(context.Context, string) error {
	return func(ctx context.Context, url string) error {
		return store.Install(ctx, url, store.Installation{Table: "job", Gate: gate})
	}
}

func subjects() []*subject {
	return []*subject{
		{name: "no trigger", jobs: jobs},
		{name: "plain NOTIFY trigger", jobs: jobs, attach: attachPlain, plain: true},
		{name: "attached, nobody watches", jobs: jobs, attach: install("on"), serve: true},
		{name: "attached, 10 % watched", jobs: jobs, attach: install("on"), serve: true, watched: jobs / 10},
		{name: "attached, every job watched", jobs: jobs, attach: install("on"), serve: true, watched: jobs},
		{name: "attached, gate off, nobody watches", jobs: jobs, attach: install("off"), serve: true},
	}
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

// jobID is the id of job i in SQL.
const jobID = `md5(%s::text)::uuid`

func (s *subject) prepare(ctx context.Context, b *bench) (err error) {
	s.measured = make(map[int]*measured)
	name := "bench_" + regexp.MustCompile(`\W+`).ReplaceAllString(strings.ToLower(s.name), "_")
	if err := execute(ctx, b.server.URL, "create database "+name); err != nil {
		return err
	}
	s.url = pgtest.WithDatabase(b.server.URL, name)
	// Room on each page for the versions of a row, as any table gets that is updated for a while.
	err = execute(ctx, s.url, sql.Job+`; alter table job set (fillfactor = 50);
		insert into job (id, account_id, type, status, progress)
		select `+fmt.Sprintf(jobID, "i")+`, '`+account+`', 'matching', 'running', '{"total": 9000000000000000}' from generate_series(1, `+fmt.Sprint(s.jobs)+`) as i;
		analyze job`)
	if err != nil {
		return err
	}
	if s.attach != nil {
		if err := s.attach(ctx, s.url); err != nil {
			return err
		}
	}
	if s.admin, err = pgx.Connect(ctx, s.url); err != nil {
		return err
	}
	if s.plain {
		if _, err := s.admin.Exec(ctx, "listen job"); err != nil {
			return err
		}
		go listenTo(s.admin)
	}
	if s.serve {
		if s.service, err = startService(ctx, b.program, s.url); err != nil {
			return err
		}
	}
	if s.watched > 0 {
		s.audience = newAudience(s.service.url)
		rows, err := s.admin.Query(ctx, `select `+fmt.Sprintf(jobID, "i")+`::text from generate_series(1, $1) as i`, s.watched)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		return s.audience.watch(ctx, ids)
	}
	return nil
}

func (s *subject) close() {
	if s.audience != nil {
		s.audience.close()
	}
	if s.service != nil {
		s.service.stop()
	}
}

// script updates a job as its worker would; done is the time, in microseconds, so that viewers see how old it is.
func script(jobs int) string {
	return fmt.Sprintf(`
\set i random(1, %d)
update job set progress = jsonb_build_object('total', 9000000000000000,
  'done', (extract(epoch from clock_timestamp()) * 1000000)::bigint, 'succeeded', 0, 'failed', 0)
where id = `+jobID+`;
`, jobs, ":i")
}

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// bench runs pgbench with the script and returns the commits a second.
func (s *subject) pgbench(ctx context.Context, b *bench, script string, args ...string) (float64, error) {
	run := exec.CommandContext(ctx, b.pgbench, append(args, "-n", "-f", "/dev/stdin", s.url)...)
	run.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	found := tps.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("pgbench says nothing of tps:\n%s", out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// round measures once with so many writers.
func (s *subject) round(ctx context.Context, b *bench, writers int) error {
	m := s.measured[writers]
	if m == nil {
		m = new(measured)
		s.measured[writers] = m
	}
	before, err := s.service.counts(ctx)
	if err != nil {
		return err
	}
	used, err := s.processor(ctx)
	if err != nil {
		return err
	}
	s.audience.begin()
	start := time.Now()
	commits, err := s.pgbench(ctx, b, script(s.jobs), "-c", fmt.Sprint(writers), "-j", "1", "-T", fmt.Sprint(int(b.time.Seconds())))
	if err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	usedNow, err := s.processor(ctx)
	if err != nil {
		return err
	}
	m.processor = append(m.processor, (usedNow-used).Seconds()/took)
	after, err := s.service.counts(ctx)
	if err != nil {
		return err
	}
	m.commits = append(m.commits, commits)
	m.notices = append(m.notices, (after.notices-before.notices)/took)
	m.reads = append(m.reads, (after.reads-before.reads)/took)
	wrong, err := s.exact(ctx)
	if err != nil {
		return err
	}
	m.inexact += wrong
	m.behind = append(m.behind, s.audience.end()...)
	// What is left of the round, in dead rows and on the way to the disk, is not the next subject's.
	return execute(ctx, s.url, "vacuum job; checkpoint")
}

// exactTimeout is generous: what is not there by then won't come.
const exactTimeout = 20 * time.Second

// exact waits until every viewer shows its row's last state, and returns how many do not.
func (s *subject) exact(ctx context.Context) (wrong int, err error) {
	if s.audience == nil {
		return 0, nil
	}
	rows, err := s.admin.Query(ctx, `select id::text, coalesce((progress ->> 'done')::bigint, 0) from job`)
	if err != nil {
		return 0, err
	}
	last := make(map[string]int64)
	var id string
	var done int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &done}, func() error { last[id] = done; return nil }); err != nil {
		return 0, err
	}
	for end := time.Now().Add(exactTimeout); ; time.Sleep(10 * time.Millisecond) {
		if wrong = s.audience.wrong(last); wrong == 0 || time.Now().After(end) || ctx.Err() != nil {
			return wrong, ctx.Err()
		}
	}
}

func execute(ctx context.Context, url, text string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, one := range strings.Split(text, "; ") { // vacuum wants to be alone
		if _, err := conn.PgConn().Exec(ctx, one).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}
