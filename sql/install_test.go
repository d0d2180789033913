package sql_test

import (
	"strings"
	"testing"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
	"jobprogress/sql"
)

func TestInstallIsIdempotentMovesAndLeavesNoTrace(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	listener := listen(t, url)
	triggers := func(table string) (n int) {
		err := admin.QueryRow(t.Context(), `select count(*) from pg_trigger where tgrelid = $1::text::regclass and not tgisinternal`, table).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	pgtest.Exec(t, admin, `create schema app; create table app."Odd jobs" (like job including all); alter table app."Odd jobs" alter status drop default, alter status type text, alter type type text`)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	// As earlier versions did.
	pgtest.Exec(t, admin, `create trigger jobprogress_update after update on app."Odd jobs" for each row execute function jobprogress.notify_job()`)
	for _, table := range []string{"job", `app."Odd jobs"`, ""} {
		if err := store.Install(t.Context(), url, store.Installation{Table: table, Move: true}); err != nil {
			t.Fatal(err)
		}
	}
	if triggers("job") != 0 || triggers(`app."Odd jobs"`) != 2 {
		t.Errorf("%d triggers on the old table, %d on the new one", triggers("job"), triggers(`app."Odd jobs"`))
	}
	// Columns of type text do as well as enums.
	pgtest.Exec(t, admin, `insert into app."Odd jobs" (id, account_id, type, status) values (gen_random_uuid(), gen_random_uuid(), 'anything', 'paused');
		update app."Odd jobs" set status = 'completed'`)
	id := pgtest.Query[job.ID](t, admin, `select id::text from app."Odd jobs"`)
	receives(t, listener, id) // of one transaction

	for range 2 {
		if err := store.Uninstall(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	}
	var left int
	err := admin.QueryRow(t.Context(), `select
		(select count(*) from pg_namespace where nspname = 'jobprogress') +
		(select count(*) from pg_proc where proname in ('notify_job', 'snapshot', 'item')) +
		(select count(*) from pg_trigger where tgname like 'jobprogress%')`).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d things left, error %v", left, err)
	}
	pgtest.Exec(t, admin, `update app."Odd jobs" set status = 'failed'`)
}

// A writer that has written a job calls item() while we uninstall: neither waits for the other for ever.
func TestUninstallDoesNotDeadlockWithWriters(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	writer, admin := pgtest.Connect(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	pgtest.Exec(t, writer, `begin`)
	pgtest.Exec(t, writer, `update job set status = 'running'`)
	uninstalled := make(chan error, 1)
	go func() { uninstalled <- store.Uninstall(t.Context(), url) }()
	for waits := false; !waits; {
		waits = pgtest.Query[bool](t, admin, `select exists (select from pg_locks where not granted and relation = 'job'::regclass)`)
	}
	pgtest.Exec(t, writer, say, id, "s1", "queued")
	pgtest.Exec(t, writer, `commit`)
	if err := <-uninstalled; err != nil {
		t.Error(err)
	}
}

func TestInstallLeavesATriggerOfSomebodyElseAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `create table task (like job); create function mine() returns trigger language plpgsql as 'begin return null; end';
		create trigger jobprogress after update on task for each row execute function mine()`)
	err := store.Install(t.Context(), url, store.Installation{Table: "task", Move: true})
	if err == nil || !strings.Contains(err.Error(), "trigger jobprogress that is not ours") || !strings.Contains(err.Error(), "Rename it") {
		t.Errorf("error %v", err)
	}
}

func TestFilesRunAsTheyAre(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	for _, script := range []string{sql.Uninstall, sql.Job, sql.Install, sql.Install, sql.Job, sql.Uninstall} {
		if _, err := admin.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInstallNamesARevokedLockFunction(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `revoke execute on function pg_try_advisory_lock(integer, integer) from public`)
	err := store.Install(t.Context(), url, store.Installation{Table: "job"})
	if err == nil || !strings.Contains(err.Error(), "pg_try_advisory_lock") || !strings.Contains(err.Error(), "gate off") {
		t.Errorf("error %v", err)
	}
	if err := store.Install(t.Context(), url, store.Installation{Table: "job", Gate: "off"}); err != nil {
		t.Error(err)
	}
}
