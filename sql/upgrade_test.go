package sql_test

import (
	"bytes"
	"context"
	_ "embed"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

//go:embed testdata/install-1.sql
var installVersion1 string

// withVersion1 is a database to which version 1 is attached.
func withVersion1(t *testing.T) (url string, admin *pgx.Conn) {
	t.Helper()
	url = pgtest.New(t)
	admin = pgtest.Connect(t, url)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, installVersion1)
	return url, admin
}

// Writers work on while the new version is installed over the old one, and none of them fails.
func TestUpgradeWhileWritersWork(t *testing.T) {
	t.Parallel()
	url, admin := withVersion1(t)
	service := role(t, admin, "service")
	pgtest.Exec(t, admin, `grant usage on schema jobprogress to `+quoted(service)+`; grant execute on function jobprogress.snapshot(uuid[]) to `+quoted(service))
	listener := pgtest.Connect(t, url)
	pgtest.Exec(t, listener, `select pg_advisory_lock_shared(class, key) from generate_series(0, 256) as key, unnest(array[1785684592, 1785684593]) as class`)
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	var rounds [8]int
	for i := range rounds {
		id, conn := insert(t, admin), pgtest.Connect(t, url)
		writers.Go(func() {
			for ctx.Err() == nil {
				for _, text := range []string{
					`begin`, say, `update job set progress = '{"total": 3}' where id = $1`, say, `update job set progress = null where id = $1`, `commit`,
				} {
					args := map[bool][]any{true: {id}}[strings.Contains(text, "$1")]
					if text == say {
						args = []any{id, "s1", "queued"}
					}
					if _, err := conn.Exec(t.Context(), text, args...); err != nil {
						t.Errorf("%s: %v", text, err)
						return
					}
				}
				rounds[i]++
			}
		})
	}
	for range 3 {
		if err := store.Install(t.Context(), url, store.Installation{}); err != nil {
			t.Error(err)
		}
	}
	stop()
	writers.Wait()
	for i, n := range rounds {
		if n == 0 {
			t.Errorf("writer %d did nothing", i)
		}
	}
	left := pgtest.Query[int](t, admin, `select
		(select count(*) from pg_proc where pronamespace = 'jobprogress'::regnamespace and proname in ('seal', 'counts')) +
		(select count(*) from pg_proc where oid = to_regprocedure('jobprogress.unwatched(uuid)')) +
		(select count(*) from pg_class where oid = to_regclass('jobprogress.secret'))`)
	if left != 0 {
		t.Errorf("%d things of the old version are left", left)
	}
	id := insert(t, admin)
	if s := snapshot(t, pgtest.WithRole(url, service), id); !s.Found {
		t.Error("the service's role may not read any more")
	}
	// What a server of the old version asks.
	_, err := pgtest.Connect(t, pgtest.WithRole(url, service)).Exec(t.Context(), `select seal_key from jobprogress.snapshot(array[null]::uuid[])`)
	if err == nil || !strings.Contains(err.Error(), "upgrade the server") {
		t.Errorf("an old server is answered %v", err)
	}
}

func TestUpgradeOfWhatIsAttachedToAnotherTable(t *testing.T) {
	t.Parallel()
	url, admin := withVersion1(t)
	pgtest.Exec(t, admin, `create schema app; alter table job set schema app`)
	install(t, url, store.Installation{})
	if attached, err := store.Attached(t.Context(), url); attached.Table != "app.job" || err != nil {
		t.Errorf("attached is %q, %v", attached.Table, err)
	}
}

func TestTriggersThatFireAlwaysStaySo(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `alter table job enable always trigger jobprogress; alter table job enable replica trigger jobprogress_insert`)
	install(t, url, store.Installation{})
	enabled := pgtest.Query[string](t, admin, `select string_agg(tgenabled::text, '' order by tgname) from pg_trigger where tgname like 'jobprogress%'`)
	if enabled != "AR" {
		t.Errorf("enabled as %q", enabled)
	}
	pgtest.Exec(t, admin, `alter table job disable trigger jobprogress`)
	install(t, url, store.Installation{})
	if enabled := pgtest.Query[string](t, admin, `select tgenabled::text from pg_trigger where tgname = 'jobprogress'`); enabled != "O" {
		t.Errorf("a disabled trigger is %q after installing again", enabled)
	}
}

// Nothing of ours is published, so subscribers that don't have it go on, and nothing fails for lack of an identity.
func TestPublicationForAllTables(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `create publication everything for all tables`)
	listen(t, url)
	id := insert(t, admin)
	pgtest.Exec(t, admin, say, id, "s1", "queued")
	pgtest.Exec(t, admin, say, id, "s1", "succeeded")
	pgtest.Exec(t, admin, `select jobprogress.sweep()`)
	install(t, url, store.Installation{})
	if published := pgtest.Query[int](t, admin, `select count(*) from pg_publication_tables where schemaname = 'jobprogress'`); published != 0 {
		t.Errorf("%d tables of ours are published", published)
	}
}

// dump runs pg_dump as a role that may read the job table and no more.
func dump(t *testing.T, url string, args ...string) []byte {
	t.Helper()
	program, err := pgtest.Program(t.Context(), "pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	run := osexec.CommandContext(t.Context(), program, append(args, "--no-owner", "--no-privileges", url)...)
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v: %s", err, stderr.Bytes())
	}
	return out
}

func TestDumpByAReadOnlyRoleAndWithoutOurSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	program, err := pgtest.Program(t.Context(), "pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	version, err := osexec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if major := pgtest.Query[string](t, admin, `select split_part(current_setting('server_version'), '.', 1)`); !strings.Contains(string(version), " "+major+".") {
		t.Logf("%s is not of the server's version %s: its dumps say nothing about ours", strings.TrimSpace(string(version)), major)
		return
	}
	reader := role(t, admin, "reader")
	pgtest.Exec(t, admin, `alter table job disable row level security; alter table account disable row level security;
		grant select on job, account to `+quoted(reader))
	install(t, url, store.Installation{})
	listen(t, url)
	id := insert(t, admin)
	pgtest.Exec(t, admin, say, id, "s1", "queued")
	whole := dump(t, pgtest.WithRole(url, reader))
	without := dump(t, pgtest.WithRole(url, reader), "--exclude-schema", "jobprogress")

	for name, text := range map[string][]byte{"whole": whole, "without our schema": without} {
		copied := pgtest.NewEmpty(t)
		psql, err := pgtest.Program(t.Context(), "psql")
		if err != nil {
			t.Fatal(err)
		}
		run := osexec.CommandContext(t.Context(), psql, "-q", "-X", copied)
		run.Stdin = bytes.NewReader(text)
		out, _ := run.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "ERROR") && !(name == "without our schema" && strings.Contains(line, `schema "jobprogress" does not exist`)) {
				t.Errorf("%s: %s", name, line)
			}
		}
		// The rows are there and can be written, and installing mends the rest.
		conn := pgtest.Connect(t, copied)
		pgtest.Exec(t, conn, `update job set status = 'running'`)
		install(t, copied, store.Installation{})
		listener := listen(t, copied)
		pgtest.Exec(t, conn, `update job set status = 'completed'`)
		receives(t, listener, id)
		if s := snapshot(t, copied, id); s.State.Status != job.Completed {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

// Who may not see the rows of jobs, for row-level security, does not see their items either.
func TestItemsAreHiddenWhereJobsAre(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	anon := role(t, admin, "anon")
	pgtest.Exec(t, admin, `grant select on job to `+quoted(anon))
	install(t, url, store.Installation{})
	listen(t, url)
	pgtest.Exec(t, admin, say, insert(t, admin), "s1", "queued")
	if seen := pgtest.Query[int](t, pgtest.Connect(t, pgtest.WithRole(url, anon)), `select count(*) from jobprogress.item_log`); seen != 0 {
		t.Errorf("%d items are seen", seen)
	}
}
