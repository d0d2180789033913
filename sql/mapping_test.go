package sql_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// taskMapping is that of table task as createTask makes it.
var taskMapping = map[string]string{
	"id": "taskId", "owner": `job."userId"`, "type": "null", "status": "job.state", "statuses": "queued=pending, active = running,done=completed",
	"error": "null", "created_at": "null", "started_at": "null", "completed_at": "null", "updated_at": "null",
}

const createTask = `create table task ("taskId" %s primary key, "userId" text, state text, progress jsonb)`

// with is a mapping with some of it changed: name, value, name, value.
func with(mapping map[string]string, changes ...string) map[string]string {
	changed := make(map[string]string)
	maps.Copy(changed, mapping)
	for i := 0; i < len(changes); i += 2 {
		changed[changes[i]] = changes[i+1]
	}
	return changed
}

func TestInstallingAgainKeepsTheMapping(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, fmt.Sprintf(createTask, "bigint"))
	install(t, url, store.Installation{Table: "task", Move: true, Mapping: taskMapping})
	before := pgtest.Query[string](t, admin, `select jobprogress.attachment()::text`)
	install(t, url, store.Installation{})
	if after := pgtest.Query[string](t, admin, `select jobprogress.attachment()::text`); after != before {
		t.Errorf("attached was\n%s\nand is\n%s", before, after)
	}
	install(t, url, store.Installation{Mapping: map[string]string{"deleted": "completed"}})
	attached, err := store.Attached(t.Context(), url)
	if err != nil || attached.Deleted != job.DeletedCompleted || attached.Chosen["owner"] != `job."userId"` {
		t.Errorf("attached is %+v, %v", attached, err)
	}
	// A preset takes all of it back.
	if err := store.Install(t.Context(), url, store.Installation{Table: "task", Preset: "job"}); err == nil {
		t.Error("the columns of the stand-in are found")
	}
}

// The bucket that the trigger asks for is the one that the server locks.
func TestIDTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sqlType string
		idType  job.IDType
		ids     []string
	}{
		{"uuid", job.IDUUID, []string{"00000000-0000-4000-8000-0000000000ff", "00000000-0000-4000-8000-00000000010a"}},
		{"bigint", job.IDBigint, []string{"0", "7", "255", "256", "9223372036854775807", "-1", "-9223372036854775808"}},
		{"integer", job.IDBigint, []string{"0", "12345", "-2147483648", "2147483647"}},
		{"smallint", job.IDBigint, []string{"300", "-5"}},
		{"text", job.IDText, []string{"a", "ab", "user/7?x=1&y#z %", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "é", "aé", "Ωé", "𝄞", strings.Repeat("x", 200)}},
		{"varchar(50)", job.IDText, []string{"clh3k2j1x0000"}},
		{"serial_number", job.IDBigint, []string{"4711"}},
		{"special_number", job.IDBigint, []string{"4712"}},
	} {
		t.Run(tt.sqlType, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			admin, server, listener := pgtest.Connect(t, url), pgtest.Connect(t, url), pgtest.Connect(t, url)
			pgtest.Exec(t, admin, `create domain serial_number as bigint; create domain special_number as serial_number`)
			pgtest.Exec(t, admin, fmt.Sprintf(createTask, tt.sqlType))
			install(t, url, store.Installation{Table: "task", Move: true, Mapping: taskMapping})
			if attached, err := store.Attached(t.Context(), url); attached.IDType != tt.idType || err != nil {
				t.Fatalf("ids are of type %s, %v", attached.IDType, err)
			}
			pgtest.Exec(t, listener, `listen jobprogress`)
			for _, text := range tt.ids {
				id, err := tt.idType.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				locks := store.Locks{Serving: true}
				locks.Buckets[tt.idType.Bucket(id)] = true
				if got, _, err := store.TryLocks(t.Context(), server, locks); got != locks || err != nil {
					t.Fatalf("locks %+v, %v", got, err)
				}
				pgtest.Exec(t, admin, `insert into task values ($1::text::`+tt.sqlType+`, 'ada', 'queued', '{"total": 3}')`, text)
				pgtest.Exec(t, admin, `update task set state = 'active'`)
				pgtest.Exec(t, admin, `select jobprogress.item($1::text::`+tt.sqlType+`, 's1', 'song', 'queued')`, text)
				receives(t, listener, id, id, id)
				if s := snapshot(t, url, id); s.State.Status != job.Running || s.State.Progress.Total != 3 || len(s.Items) != 1 || s.State.Account != "ada" {
					t.Errorf("%s is read as %+v", text, s)
				}
				pgtest.Exec(t, admin, `select jobprogress.sweep()`)
				if pgtest.Query[int](t, admin, `select count(*) from jobprogress.item_log`) != 1 {
					t.Errorf("the item of %s is swept away", text)
				}
				pgtest.Exec(t, admin, `delete from task`)
				receives(t, listener, id)
				pgtest.Exec(t, admin, `select jobprogress.sweep()`)
				if err := store.Unlock(t.Context(), server, locks); err != nil {
					t.Fatal(err)
				}
			}
			pgtest.Exec(t, admin, `select jobprogress.sweep()`)
		})
	}
}

// The writer goes on with an id that is longer than any that can be watched.
func TestLongIDsArePassedOver(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, fmt.Sprintf(createTask, "text"))
	install(t, url, store.Installation{Table: "task", Move: true, Mapping: taskMapping})
	listener := listen(t, url)
	pgtest.Exec(t, admin, `insert into task values (repeat('x', 2000), 'ada', 'queued'), ('', 'ada', 'queued')`)
	pgtest.Exec(t, admin, `select jobprogress.item("taskId", 's1', 'song', 'queued') from task`)
	receives(t, listener, "", "") // the row, the item
	silent(t, listener, admin)
}

func TestProgressIsReadHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	want := job.Progress{Done: 3, Total: 10, Message: "Fetching page 3"}
	const object = `{"total": 10, "done": 3, "message": "Fetching page 3", "failed": "many"}`
	for name, tt := range map[string]struct {
		sqlType, value string
		want           job.Progress
	}{
		"jsonb":              {"jsonb", object, want},
		"doubly encoded":     {"jsonb", `"{\"total\": 10, \"done\": 3, \"message\": \"Fetching page 3\"}"`, want},
		"json":               {"json", object, want},
		"json, doubly":       {"json", `"{\"total\": 10, \"done\": 3, \"message\": \"Fetching page 3\"}"`, want},
		"text":               {"text", object, want},
		"text that is none":  {"text", `three of ten`, job.Progress{}},
		"what jsonb refuses": {"json", `{"total": 10, "x": "\u0000"}`, job.Progress{Total: 10}},
		"text, a NUL in it":  {"text", `{"total": 10, "message": "a\u0000b \ud800"}`, job.Progress{Total: 10, Message: "a\uFFFDb \uFFFD"}},
		"a string":           {"jsonb", `"three of ten"`, job.Progress{}},
		"an array":           {"jsonb", `[1, 2]`, job.Progress{}},
		"odd messages":       {"jsonb", `{"total": 1, "message": {"x": 1}}`, job.Progress{Total: 1}},
		"a long message":     {"jsonb", `{"total": 1, "message": "` + strings.Repeat("é", 300) + `"}`, job.Progress{Total: 1, Message: strings.Repeat("é", 197) + "..."}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			admin := pgtest.Connect(t, url)
			pgtest.Exec(t, admin, `alter table job alter progress drop default, alter progress type `+tt.sqlType+` using null`)
			install(t, url, store.Installation{})
			id := insert(t, admin)
			pgtest.Exec(t, admin, `update job set progress = $1::text::`+tt.sqlType, tt.value)
			if s := snapshot(t, url, id); s.State.Progress != tt.want {
				t.Errorf("read as %+v", s.State.Progress)
			}
		})
	}
}

// Migrations of the application go on, and its writers too, whatever is to be read meanwhile.
func TestMigrationsWithUsAttached(t *testing.T) {
	t.Parallel()
	const write = `update job set updated_at = now()`
	for name, tt := range map[string]struct {
		migration string
		readable  bool // without installing again
		notified  bool
	}{
		"add a column":           {`alter table job add note text`, true, true},
		"drop one":               {`alter table job add note text; alter table job drop note`, true, true},
		"drop a mapped one":      {`alter table job drop error`, false, true},
		"rename a mapped one":    {`alter table job rename error to reason`, false, true},
		"rename the id":          {`alter table job rename id to key`, false, false},
		"retype a mapped one":    {`alter table job alter status drop default, alter status type text, alter progress type json, alter type type varchar(40)`, true, true},
		"rename the table":       {`alter table job rename to task; create view job as select * from task`, true, false},
		"swap the table":         {`create table task (like job including all); insert into task select * from job; alter table job rename to job_old; alter table task rename to job`, true, false},
		"move it to a schema":    {`create schema app; alter table job set schema app; set search_path = app`, false, true},
		"rebuild it":             {`alter table job alter created_at type timestamptz(3)`, true, true},
		"truncate and refill":    {`create table copy as select * from job; truncate job; insert into job select * from copy`, true, true},
		"rename its primary key": {`alter table job rename constraint job_pkey to pk`, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			admin := pgtest.Connect(t, url)
			id := insert(t, admin)
			listener := listen(t, url)
			pgtest.Exec(t, admin, tt.migration)
			pgtest.Exec(t, admin, `notify jobprogress, 'migrated'`)
			for n, err := listener.WaitForNotification(t.Context()); n == nil || n.Payload != "migrated"; n, err = listener.WaitForNotification(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
			}
			pgtest.Exec(t, admin, write)
			if tt.notified {
				receives(t, listener, id)
			}
			pgtest.Exec(t, admin, say, id, "s1", "queued") // warns, at most
			if pgtest.Query[int](t, admin, `select count(*) from jobprogress.item_log`) != 1 {
				t.Error("the item is not kept")
			}
			_, err := admin.Exec(t.Context(), `select from jobprogress.snapshot(array[$1])`, string(id))
			if (err == nil) != tt.readable {
				t.Errorf("read with error %v", err)
			}
		})
	}
}

// PostgreSQL does not change the type of a column that a trigger looks at: the triggers go first, and come back with
// install.
func TestRetypeTheID(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	insert(t, admin)
	pgtest.Exec(t, admin, `begin; drop trigger jobprogress on job; drop trigger jobprogress_insert on job; alter table job alter id type text; commit`)
	install(t, url, store.Installation{})
	listener := listen(t, url)
	pgtest.Exec(t, admin, `update job set id = 'x'`)
	pgtest.Exec(t, admin, `select jobprogress.item('x', 's1', 'song', 'queued')`)
	silentBut(t, listener, admin, "x")
	if s := snapshot(t, url, "x"); !s.Found || len(s.Items) != 1 {
		t.Errorf("read as %+v", s)
	}
}

// silentBut checks that a job, and perhaps others, were notified.
func silentBut(t *testing.T, listener *pgx.Conn, other *pgx.Conn, id job.ID) {
	t.Helper()
	pgtest.Exec(t, other, `notify jobprogress, 'marker'`)
	found := false
	for {
		n, err := listener.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		switch n.Payload {
		case "marker":
			if !found {
				t.Errorf("%s was not notified", id)
			}
			return
		case string(id):
			found = true
		}
	}
}

func TestPartitionsComeAndGo(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `create table task (like job including defaults) partition by range (created_at); alter table task add primary key (id, created_at);
		create table now partition of task default`)
	install(t, url, store.Installation{Table: "task", Move: true})
	listener := listen(t, url)
	pgtest.Exec(t, admin, `create table old partition of task for values from ('2000-01-01') to ('2001-01-01')`)
	pgtest.Exec(t, admin, `insert into task (id, account_id, type, created_at) values ('00000000-0000-4000-8000-000000000107', $1, 'matching', '2000-05-05')`, ada)
	receives(t, listener, "00000000-0000-4000-8000-000000000107")
	pgtest.Exec(t, admin, `alter table task detach partition old`)
	pgtest.Exec(t, admin, `update old set status = 'running'`) // it is nobody's job now
	silent(t, listener, admin)
	pgtest.Exec(t, admin, `alter table task attach partition old for values from ('2000-01-01') to ('2001-01-01')`)
	pgtest.Exec(t, admin, `update task set status = 'completed'`)
	receives(t, listener, "00000000-0000-4000-8000-000000000107")
	pgtest.Exec(t, admin, `drop table old`)
	if s := snapshot(t, url, "00000000-0000-4000-8000-000000000107"); s.Found {
		t.Errorf("read as %+v", s)
	}
}

// Names that need quotes, in each place where they stand.
func TestOddNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"it's", `we"ird`, "%s {id} {} $create$", `back\slash`, "a b", "order", "ÄÖ"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			admin := pgtest.Connect(t, url)
			quotedName := pgx.Identifier{name}.Sanitize()
			pgtest.Exec(t, admin, `create table `+quotedName+` (like job including all); alter table `+quotedName+` rename id to `+quotedName)
			for range 2 {
				install(t, url, store.Installation{Table: quotedName, Move: true, Mapping: map[string]string{"id": name}})
			}
			listener := listen(t, url)
			pgtest.Exec(t, admin, `insert into `+quotedName+` (`+quotedName+`, account_id, type) values ('00000000-0000-4000-8000-00000000000a', $1, 'matching')`, ada)
			receives(t, listener, "00000000-0000-4000-8000-00000000000a")
			pgtest.Exec(t, admin, `select jobprogress.item('00000000-0000-4000-8000-00000000000a', 's1', 'song', 'queued')`)
			if s := snapshot(t, url, "00000000-0000-4000-8000-00000000000a"); !s.Found || len(s.Items) != 1 {
				t.Errorf("read as %+v", s)
			}
			_, findings, err := store.Check(t.Context(), admin, store.Roles{})
			for _, f := range findings {
				if f.Code != "foreign_locks" { // the listener's
					t.Errorf("found %+v, %v", f, err)
				}
			}
		})
	}
}

// Moments without a time zone, as Prisma and Drizzle make them, and a worker somewhere else.
func TestRunsAreTheSameInEachTimeZone(t *testing.T) {
	t.Parallel()
	for _, sqlType := range []string{"timestamp", "timestamptz", "date"} {
		url := pgtest.New(t)
		admin := pgtest.Connect(t, url)
		pgtest.Exec(t, admin, `alter table job alter started_at type `+sqlType)
		install(t, url, store.Installation{})
		listen(t, url)
		id := insert(t, admin)
		pgtest.Exec(t, admin, `update job set started_at = '2026-03-04 05:06:07'`)
		pgtest.Exec(t, admin, `set timezone = 'Asia/Tokyo'; set datestyle = 'German'`)
		pgtest.Exec(t, admin, say, id, "s1", "queued")
		if s := snapshot(t, url, id); len(s.Items) != 1 {
			t.Errorf("%s: read as %+v", sqlType, s)
		}
	}
}

// Who owns the table, or may create functions, must not become the superuser who installs.
func TestSuperuserRunsNothingOfOthers(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	mallory := role(t, admin, "mallory")
	pgtest.Exec(t, admin, `grant create on schema public to `+quoted(mallory)+`; alter table job owner to `+quoted(mallory)+`;
		create table public.who (name text); grant all on who to public;
		create function caught() returns void language plpgsql as 'begin reset role; insert into public.who select current_user; exception when others then insert into public.who select current_user; end';
		create function public.quote_ident(name) returns text language plpgsql as 'begin perform caught(); return pg_catalog.quote_ident($1::text); end'`)
	conn := pgtest.Connect(t, pgtest.WithRole(url, mallory))
	pgtest.Exec(t, conn, `create type mood as enum ('pending', 'running'); alter table job alter status drop default, alter status type mood using 'pending', alter status set default 'pending';
		create function mood_text(mood) returns text language plpgsql as 'begin perform public.caught(); return ''pending''; end';
		create cast (mood as text) with function mood_text(mood)`)
	insert(t, admin)
	install(t, url, store.Installation{Table: "job", ServiceRole: mallory})
	pgtest.Exec(t, conn, `create or replace function jobprogress.attachment() returns jsonb language plpgsql as 'begin perform public.caught(); return ''{}''; end'`)
	install(t, url, store.Installation{Table: "job"})
	if caught := pgtest.Query[*string](t, admin, `select string_agg(distinct name, ', ') from who where name <> $1`, mallory); caught != nil {
		t.Errorf("ran as %s", *caught)
	}
}
