package sql_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

func TestEachWriteNotifiesTheIDAndNothingElse(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	receives(t, listener, id)
	for _, set := range []string{`status = 'running', error = 'odd'`, `updated_at = now()`, `status = status`} {
		pgtest.Exec(t, writer, `update job set `+set)
		receives(t, listener, id)
	}
	renamed := job.ID(uuid.NewString())
	pgtest.Exec(t, writer, `update job set id = $1`, renamed)
	receives(t, listener, renamed, id)
	pgtest.Exec(t, writer, `delete from job`)
	receives(t, listener, renamed)
	silent(t, listener, writer)
}

func TestTransactionNotifiesAJobOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	receives(t, listener, id)
	pgtest.Exec(t, writer, fmt.Sprintf(`
		begin;
		update job set progress = '{"total": 9, "done": 1}';
		savepoint a;
		update job set progress = '{"total": 9, "done": 2}';
		rollback to a;
		select jobprogress.item('%[1]s', 's' || i, 'song', 'queued') from generate_series(1, 1000) as i;
		update job set progress = '{"total": 9, "done": 4}';
		commit;
		begin;
		update job set progress = '{"total": 9, "done": 5}';
		rollback`, id))
	receives(t, listener, id)
	silent(t, listener, writer)
}

// The writer looks up names in its own search_path.
func TestWritersMayHaveAnySearchPath(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	receives(t, listener, id)
	pgtest.Exec(t, writer, `create schema trap;
		create function trap.fail(text, text) returns boolean language plpgsql as 'begin raise exception $$trapped$$; end';
		create operator trap.= (leftarg = text, rightarg = text, function = trap.fail);
		create operator trap.<> (leftarg = text, rightarg = text, function = trap.fail);
		create function trap.pg_notify(text, text) returns void language plpgsql as 'begin raise exception $$trapped$$; end'`)
	for _, path := range []string{`trap, pg_catalog, public`, `''`} {
		pgtest.Exec(t, writer, `set search_path = `+path)
		pgtest.Exec(t, writer, `update public.job set status = 'running'`)
		pgtest.Exec(t, writer, `select jobprogress.item($1, 's1', 'song', 'queued')`, id)
		receives(t, listener, id, id)
	}
}

func TestNothingIsNotifiedThatNobodyWatches(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, server, writer := pgtest.Connect(t, url), pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, listener, `listen jobprogress`)
	a := job.ID("00000000-0000-4000-8000-000000000001")
	pgtest.Exec(t, writer, `insert into job (id, account_id, type) values ($1, $3, 'matching'), ($2, $3, 'matching')`,
		a, "00000000-0000-4000-8000-000000000002", ada)
	change := func() {
		t.Helper()
		pgtest.Exec(t, writer, `update job set progress = jsonb_build_object('total', coalesce((progress ->> 'total')::int, 0) + 1)`)
		pgtest.Exec(t, writer, `select jobprogress.item(id, 's', 'song', 'queued') from job`)
	}
	change()
	silent(t, listener, writer)
	if kept := pgtest.Query[int](t, writer, `select count(*) from jobprogress.item_log`); kept != 0 {
		t.Errorf("%d items are kept though no server is there", kept)
	}
	locks := store.Locks{Serving: true}
	locks.Buckets[job.IDUUID.Bucket(a)] = true
	if got, _, err := store.TryLocks(t.Context(), server, locks); got != locks || err != nil {
		t.Fatalf("locks %+v, %v", got, err)
	}
	change()
	receives(t, listener, a, a) // a row, an item
	silent(t, listener, writer)
	if kept := pgtest.Query[int](t, writer, `select count(*) from jobprogress.item_log`); kept == 0 {
		t.Error("no items are kept")
	}
	if err := store.Unlock(t.Context(), server, locks); err != nil {
		t.Fatal(err)
	}
	change()
	silent(t, listener, writer)
}

// A writer keeps no lock that would keep a server from its own, or that another writer would take for a server's.
func TestWritersHoldNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, first, second := pgtest.Connect(t, url), pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, listener, `listen jobprogress`)
	pgtest.Exec(t, first, `insert into job (id, account_id, type) values ('00000000-0000-4000-8000-000000000107', $1, 'matching'), ('00000000-0000-4000-8000-000000000207', $1, 'matching')`, ada)
	pgtest.Exec(t, first, `begin; update job set status = 'running' where id = '00000000-0000-4000-8000-000000000107'; select jobprogress.item('00000000-0000-4000-8000-000000000107', 's', 'song', 'queued')`)
	pgtest.Exec(t, second, `update job set status = 'running' where id = '00000000-0000-4000-8000-000000000207'`)
	pgtest.Exec(t, second, `select jobprogress.item('00000000-0000-4000-8000-000000000207', 's', 'song', 'queued')`)
	silent(t, listener, second)
	held := pgtest.Query[int](t, second, `select count(*) from pg_locks where locktype = 'advisory'
		and database = (select oid from pg_database where datname = current_database())`)
	if held != 0 {
		t.Errorf("%d advisory locks", held)
	}
}

// All transactions that may have found no lock have ids below the mark, those that have not ended, too.
func TestMarkIsAboveTransactionsThatHaveNotEnded(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	server, writer := pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, writer, `begin`)
	xid := pgtest.Query[uint64](t, writer, `select pg_current_xact_id()::text::bigint`)
	_, mark, err := store.TryLocks(t.Context(), server, store.Locks{Serving: true})
	if err != nil || mark <= xid {
		t.Errorf("mark %d, transaction %d, %v", mark, xid, err)
	}
	id := job.ID(uuid.NewString())
	if r := read(t, url, job.Request{ID: id}); r.XMin >= mark {
		t.Errorf("a read with xmin %d counts as one after the mark %d", r.XMin, mark)
	}
	pgtest.Exec(t, writer, `commit`)
	for r := read(t, url, job.Request{ID: id}); r.XMin < mark; r = read(t, url, job.Request{ID: id}) { // another test's
	}
}

func TestWithTheGateOffEverythingIsNotified(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, server, writer := pgtest.Connect(t, url), pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, listener, `listen jobprogress`)
	if _, _, err := store.TryLocks(t.Context(), server, store.Locks{Serving: true}); err != nil {
		t.Fatal(err)
	}
	id := insert(t, writer)
	silent(t, listener, writer)
	install(t, url, store.Installation{Gate: "off"})
	install(t, url, store.Installation{}) // keeps it off
	pgtest.Exec(t, writer, `update job set status = 'running'`)
	pgtest.Exec(t, writer, `select jobprogress.item($1, 's', 'song', 'queued')`, id)
	pgtest.Exec(t, writer, `delete from job`)
	receives(t, listener, id, id, id)
	install(t, url, store.Installation{Gate: "on"})
	id = insert(t, writer)
	pgtest.Exec(t, writer, `update job set status = 'running'`)
	pgtest.Exec(t, writer, `select jobprogress.item($1, 's', 'song', 'queued')`, id)
	silent(t, listener, writer)
}

func TestNotifyOffSilencesTriggerAndItem(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	receives(t, listener, id)
	pgtest.Exec(t, writer, fmt.Sprintf(`
		begin;
		set local jobprogress.notify = off;
		update job set status = 'running';
		select jobprogress.item('%s', 's1', 'song', 'queued');
		commit`, id))
	silent(t, listener, writer)
	if items := snapshot(t, url, id).Items; len(items) != 1 {
		t.Errorf("items %v, want the one that was not notified", items)
	}
	pgtest.Exec(t, writer, `update job set status = 'completed'`)
	receives(t, listener, id)
}

func TestWriterMayChangeTheTableInTheSameTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	writer := pgtest.Connect(t, url)
	insert(t, writer)
	pgtest.Exec(t, writer, `
		begin;
		update job set status = 'failed';
		alter table job add column note text;
		create index on job (status);
		delete from job;
		truncate job;
		commit`)
}

// Types of extensions have operators, if any, that our functions don't see.
func TestColumnsOfATypeWithoutEquality(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `create type word;
		create function word_in(cstring) returns word language internal strict immutable as 'textin';
		create function word_out(word) returns cstring language internal strict immutable as 'textout';
		create type word (input = word_in, output = word_out, like = text);
		alter table job alter status drop default, alter status type word using status::text::word,
			drop account_id, add account_id word, alter error type word using error::text::word`)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := job.ID(uuid.NewString())
	pgtest.Exec(t, writer, `insert into job (id, account_id, type, status, error) values ($1, $2::text::word, 'matching', 'running', 'odd')`, id, ada)
	receives(t, listener, id)
	if s := snapshot(t, url, id); s.State.Status != job.Running || s.State.Error != "odd" || s.State.Account != ada {
		t.Errorf("read %+v, without installing again", s.State)
	}
}

// Rows of children that inherit are rows of the table, whose triggers they don't have.
func TestInheritanceChildrenAndPartitionsAreNotified(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `create table child () inherits (job); alter table child add primary key (id);
		create table grandchild () inherits (child); alter table grandchild add primary key (id);
		create table parts (like job including defaults) partition by hash (id); alter table parts add primary key (id);
		create table part partition of parts for values with (modulus 1, remainder 0)`)
	listener := listen(t, url)
	for _, c := range [][2]string{{"job", "grandchild"}, {"parts", "part"}, {"job", "child"}} {
		install(t, url, store.Installation{Table: c[0], Move: true})
		id := job.ID(uuid.NewString())
		pgtest.Exec(t, admin, `insert into `+c[1]+` (id, account_id, type) values ($1, $2, 'matching')`, id, ada)
		pgtest.Exec(t, admin, `update `+c[0]+` set status = 'running' where id = $1`, id)
		receives(t, listener, id, id)
		if s := snapshot(t, url, id); s.State.Status != job.Running {
			t.Errorf("a row of %s is read as %+v", c[1], s)
		}
	}
	left := pgtest.Query[int](t, admin, `select count(*) from pg_trigger where tgrelid in ('parts'::regclass, 'part'::regclass) and tgname like 'jobprogress%'`)
	if left != 0 {
		t.Errorf("%d triggers are left on a table that is not attached any more", left)
	}
}

// warnings is a session with the texts of what it was warned of.
func warnings(t *testing.T, url string) (*pgx.Conn, *[]string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	texts := new([]string)
	config.OnNotice = func(_ *pgxConn, n *pgxNotice) { *texts = append(*texts, n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn, texts
}
