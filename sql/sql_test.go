package sql_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
	"jobprogress/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

const ada = "00000000-0000-4000-8000-00000000000a"

// deadline is for what should take milliseconds.
const deadline = 20 * time.Second

// session is a connection for as long as the test runs.
func session(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func listen(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn := session(t, url)
	exec(t, conn, `listen jobprogress`)
	watchAll(t, conn)
	return conn
}

// watchAll has everything notified.
func watchAll(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `select pg_advisory_lock_shared(class, bucket) from generate_series(0, 255) as bucket, unnest($1::int[]) as class`,
		[]int32{store.RowLocks, store.ItemLocks})
}

func exec(t *testing.T, conn *pgx.Conn, text string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// next is the next notice, which must be a well-formed one.
func next(t *testing.T, conn *pgx.Conn) job.Notice {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		t.Fatalf("wait for notice: %v", err)
	}
	notice, err := job.ParseNotice(n.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return notice
}

// silent checks that nothing was notified so far: what is notified now comes next.
func silent(t *testing.T, listener, other *pgx.Conn) {
	t.Helper()
	exec(t, other, `notify jobprogress, '{"kind":"probe","probe":"marker"}'`)
	if n := next(t, listener); n.Kind != job.KindProbe {
		t.Errorf("unexpected notice %+v", n)
	}
}

func insert(t *testing.T, conn *pgx.Conn) job.ID {
	t.Helper()
	id := uuid.NewString()
	exec(t, conn, `insert into job (id, account_id, type) values ($1, $2, 'matching')`, id, ada)
	return job.ID(id)
}

func snapshot(t *testing.T, url string, id job.ID) job.Snapshot {
	t.Helper()
	s, err := store.Open(url, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rows, err := s.Snapshot(t.Context(), []job.ID{id})
	if err != nil {
		t.Fatal(err)
	}
	return rows[0]
}

func TestUpdateOfAPublishedColumnNotifiesTheCommittedState(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), session(t, url)
	id := insert(t, writer)
	for _, set := range []string{`type = 'song_analysis'`, `updated_at = now(), started_at = now()`, `status = status, progress = progress`} {
		exec(t, writer, `update job set `+set)
	}
	silent(t, listener, writer)

	exec(t, writer, `update job set status = 'running', progress = '{"total": 4, "done": 1}', error = 'odd'`)
	n := next(t, listener)
	want := job.State{Account: ada, Status: job.Running, Progress: job.Progress{Done: 1, Total: 4}, Error: "odd"}
	if n.Kind != job.KindState || n.Job != id || n.State != want {
		t.Errorf("notice %+v, want state %+v", n, want)
	}
	if s := snapshot(t, url, id); s.State != n.State || !s.Visible.Includes(n.XID) {
		t.Errorf("snapshot %+v does not agree with the notice %+v", s, n)
	}

	exec(t, writer, `update job set error = null`)
	if n := next(t, listener); n.State.Error != "" {
		t.Errorf("error %q after it was cleared", n.State.Error)
	}
	exec(t, writer, `delete from job`)
	if n := next(t, listener); n.Kind != job.KindRow || n.Job != id {
		t.Errorf("notice %+v of a deleted row", n)
	}
}

func TestTransactionNotifiesTheStateItCommitsLast(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), session(t, url)
	insert(t, writer)
	exec(t, writer, `
		begin;
		update job set progress = '{"total": 9, "done": 1}';
		savepoint a;
		update job set progress = '{"total": 9, "done": 2}';
		rollback to a;
		update job set progress = '{"total": 9, "done": 3}';
		update job set progress = '{"total": 9, "done": 1}';
		update job set progress = '{"total": 9, "done": 4}';
		commit;
		begin;
		update job set progress = '{"total": 9, "done": 5}';
		rollback`)
	var xids []uint64
	for _, done := range []int64{1, 3, 1, 4} {
		n := next(t, listener)
		if n.State.Progress.Done != done {
			t.Errorf("notice of %d, want %d", n.State.Progress.Done, done)
		}
		xids = append(xids, n.XID)
	}
	if len(slices.Compact(xids)) != 1 {
		t.Errorf("transaction ids %v of one transaction", xids)
	}
	silent(t, listener, writer)
}

func TestItemsOfOneTransactionKeepTheirOrderAndNumber(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, worker := listen(t, url), session(t, url)
	id := insert(t, worker)
	said := []string{"queued", "in_progress", "failed", "in_progress", "succeeded"}
	tx, err := worker.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range said {
		if _, err := tx.Exec(t.Context(), `select jobprogress.item($1, 's1', 'song', $2)`, id, status); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, status := range said {
		if n := next(t, listener); n.Kind != job.KindItem || n.Item.Status != status {
			t.Errorf("notice %+v, want status %s", n, status)
		}
	}
}

func TestWriterMayChangeTheTableInTheSameTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	writer := session(t, url)
	insert(t, writer)
	exec(t, writer, `
		begin;
		update job set status = 'failed';
		alter table job add column note text;
		create index on job (status);
		delete from job;
		truncate job;
		commit`)
}

// As those of extensions are, whose operators the triggers don't see.
func TestColumnsOfATypeWithoutEquality(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := session(t, url)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	exec(t, admin, `create type word;
		create function word_in(cstring) returns word language internal strict immutable as 'textin';
		create function word_out(word) returns cstring language internal strict immutable as 'textout';
		create type word (input = word_in, output = word_out, like = text);
		alter table job alter status drop default, alter status type word using status::text::word,
			drop account_id, add account_id word, alter error type word using error::text::word`)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	listener, writer := listen(t, url), session(t, url)
	id := uuid.NewString()
	exec(t, writer, `insert into job (id, account_id, type, status) values ($1, $2::text::word, 'matching', 'pending')`, id, ada)
	exec(t, writer, `update job set updated_at = now()`)
	silent(t, listener, writer)
	exec(t, writer, `update job set status = 'running', error = 'odd'`)
	n := next(t, listener)
	if n.Kind != job.KindState || n.State.Status != job.Running || n.State.Error != "odd" || n.State.Account != ada {
		t.Errorf("notice %+v", n)
	}
	if got := snapshot(t, url, job.ID(id)); got.State != n.State {
		t.Errorf("read %+v, notified %+v", got.State, n.State)
	}
}

func TestOddMomentsAndChangedIDs(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), session(t, url)
	id := insert(t, writer)
	exec(t, writer, `update job set started_at = '-infinity', completed_at = 'infinity', updated_at = '99999-01-01'`)
	if s := snapshot(t, url, id); !s.Found || s.CompletedAt != nil || s.StartedAt != nil || s.UpdatedAt != nil || s.CreatedAt == nil {
		t.Errorf("snapshot %+v", s)
	}
	renamed := uuid.NewString()
	exec(t, writer, `update job set id = $1`, renamed)
	for _, want := range []job.ID{id, job.ID(renamed)} {
		if n := next(t, listener); n.Kind != job.KindRow || n.Job != want {
			t.Errorf("notice %+v, want to be told to look at %s", n, want)
		}
	}
}

func TestNothingIsNotifiedThatNobodyWatches(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, server, writer := session(t, url), session(t, url), session(t, url)
	exec(t, listener, `listen jobprogress`)
	a, b := insert(t, writer), insert(t, writer)
	for a.Bucket() == b.Bucket() {
		b = insert(t, writer)
	}
	change := func() {
		t.Helper()
		exec(t, writer, `update job set progress = jsonb_build_object('total', coalesce((progress ->> 'total')::int, 0) + 1)`)
		exec(t, writer, `select jobprogress.item(id, 's', 'song', 'queued') from job`)
	}
	change()
	silent(t, listener, writer)
	var rows, items store.Locks
	rows.Rows[a.Bucket()], items.Items[a.Bucket()] = true, true
	hold := func(wanted store.Locks) {
		t.Helper()
		if held, err := store.TryLocks(t.Context(), server, wanted); held != wanted || err != nil {
			t.Fatalf("not all are held, %v", err)
		}
	}
	hold(rows)
	change()
	if n := next(t, listener); n.Kind != job.KindState || n.Job != a {
		t.Errorf("notice %+v, want the state of the job that is watched", n)
	}
	silent(t, listener, writer)
	hold(items)
	if err := store.Unlock(t.Context(), server, rows); err != nil {
		t.Fatal(err)
	}
	change()
	if n := next(t, listener); n.Kind != job.KindItem || n.Job != a {
		t.Errorf("notice %+v, want the item of the job that is watched", n)
	}
	silent(t, listener, writer)
}

// Who writes keeps no lock that would keep a server from its own, or that another writer would take for a server's.
func TestWritersHoldNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, first, second := session(t, url), session(t, url), session(t, url)
	exec(t, listener, `listen jobprogress`)
	exec(t, first, `insert into job (id, account_id, type) values ('00000000-0000-4000-8000-000000000107', $1, 'matching'), ('00000000-0000-4000-8000-000000000207', $1, 'matching')`, ada)
	exec(t, first, `begin; update job set status = 'running' where id = '00000000-0000-4000-8000-000000000107'; select jobprogress.item('00000000-0000-4000-8000-000000000107', 's', 'song', 'queued')`)
	exec(t, second, `update job set status = 'running' where id = '00000000-0000-4000-8000-000000000207'`)
	exec(t, second, `select jobprogress.item('00000000-0000-4000-8000-000000000207', 's', 'song', 'queued')`)
	silent(t, listener, second)
	var held int
	err := second.QueryRow(t.Context(), `select count(*) from pg_locks where locktype = 'advisory'
		and database = (select oid from pg_database where datname = current_database())`).Scan(&held)
	if err != nil || held != 0 {
		t.Errorf("%d advisory locks, %v", held, err)
	}
}

func TestWithTheGateOffEverythingIsNotified(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := session(t, url), session(t, url)
	exec(t, listener, `listen jobprogress`)
	id := insert(t, writer)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job", Ungated: true}); err != nil {
		t.Fatal(err)
	}
	exec(t, writer, `update job set status = 'running'`)
	exec(t, writer, `select jobprogress.item($1, 's', 'song', 'queued')`, id)
	exec(t, writer, `delete from job`)
	for _, want := range []job.Kind{job.KindState, job.KindItem, job.KindRow} {
		if n := next(t, listener); n.Kind != want || n.Job != id {
			t.Errorf("notice %+v, want kind %s", n, want)
		}
	}
	if err := store.Install(t.Context(), url, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	id = insert(t, writer)
	exec(t, writer, `update job set status = 'running'`)
	exec(t, writer, `select jobprogress.item($1, 's', 'song', 'queued')`, id)
	silent(t, listener, writer)
}

func TestInstallNamesARevokedLockFunction(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	exec(t, session(t, url), `revoke execute on function pg_try_advisory_lock(integer, integer) from public`)
	err := store.Install(t.Context(), url, store.Installation{Table: "job"})
	if err == nil || !strings.Contains(err.Error(), "pg_try_advisory_lock") || !strings.Contains(err.Error(), "gate off") {
		t.Errorf("error %v", err)
	}
	if err := store.Install(t.Context(), url, store.Installation{Table: "job", Ungated: true}); err != nil {
		t.Error(err)
	}
}

func TestNotifyOffSilencesTriggerAndItem(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), session(t, url)
	id := insert(t, writer)
	exec(t, writer, fmt.Sprintf(`
		begin;
		set local jobprogress.notify = off;
		update job set status = 'running';
		select jobprogress.item('%s', 's1', 'song', 'queued');
		commit`, id))
	silent(t, listener, writer)
	exec(t, writer, `update job set status = 'completed'`)
	if n := next(t, listener); n.State.Status != job.Completed {
		t.Errorf("notice %+v after the silent transaction", n)
	}
}

// texts of every size and kind that a NOTIFY could choke on.
func texts() map[string]string {
	texts := map[string]string{"empty": "", "surrogates": `\ud834\u0000`}
	for kind, character := range map[string]string{"ascii": "x", "four bytes": "𝄞", "escaped": "\x01", "quote": `"`, "newline": "\n"} {
		texts["1 "+kind] = character
		texts["8 kB of "+kind] = strings.Repeat(character, 8<<10/len(character))
		texts["1 MB of "+kind] = strings.Repeat(character, 1<<20/len(character))
	}
	return texts
}

// isCut tells whether got is all of the text, or its beginning.
func isCut(got, text string, characters int) bool {
	if utf8.RuneCountInString(text) <= characters {
		return got == text
	}
	beginning, cut := strings.CutSuffix(got, "...")
	return cut && strings.HasPrefix(text, beginning) && utf8.RuneCountInString(got) == characters && utf8.ValidString(got)
}

func TestWriterNeverBreaksBecauseOfALongError(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), session(t, url)
	id := insert(t, writer)
	for name, text := range texts() {
		exec(t, writer, `update job set error = 'before' where id = $1`, id)
		next(t, listener)
		exec(t, writer, `update job set error = $2 where id = $1`, id, text)
		n := next(t, listener)
		read := snapshot(t, url, id).State.Error
		if n.Kind != job.KindState || n.State.Error != read || !isCut(read, text, 1000) {
			t.Errorf("%s: notice %s with an error of %d characters, the snapshot has %d", name, n.Kind, utf8.RuneCountInString(n.State.Error), utf8.RuneCountInString(read))
		}
	}
}

func TestWriterNeverBreaksBecauseOfALongLabel(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, worker := listen(t, url), session(t, url)
	id := insert(t, worker)
	for name, text := range texts() {
		exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'queued', label => $2)`, id, text)
		if n := next(t, listener); !isCut(n.Item.Label, text, 200) {
			t.Errorf("%s: label of %d characters", name, utf8.RuneCountInString(n.Item.Label))
		}
	}
	exec(t, worker, `select jobprogress.item($1, repeat('x', 10000), 'song', 'queued')`, id)
	silent(t, listener, worker)
}

func TestWriterNeverBreaksBecauseOfOddProgress(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), session(t, url)
	id := insert(t, writer)
	big := strings.Repeat("9", 100_000)
	for column, want := range map[string]job.Progress{
		`null`: {}, `[]`: {}, `"x"`: {}, `1`: {}, `[{"done": 1}]`: {},
		`{"done": -1, "total": 1.5}`:                            {},
		`{"done": 1000000000000000000000000000000, "total": 3}`: {Total: 3},
		`{"done": "5", "total": null, "failed": {}}`:            {},
		`{"done": 5}`:                                       {Done: 5},
		`{"done": ` + big + `, "total": 7}`:                 {Total: 7},
		`{"done": "` + big + `", "total": 7, "failed": 1}`:  {Total: 7, Failed: 1},
		`{"other": "` + big + `", "total": 8, "done": 8.0}`: {Total: 8, Done: 8},
	} {
		exec(t, writer, `update job set progress = '{"total": 77}' where id = $1`, id)
		next(t, listener)
		exec(t, writer, `update job set progress = $2 where id = $1`, id, column)
		n := next(t, listener)
		if s := snapshot(t, url, id); s.State.Progress != want || n.Kind == job.KindState && n.State != s.State {
			t.Errorf("%.60s: notice %+v, snapshot %+v, want %+v", column, n, s.State.Progress, want)
		}
	}
	exec(t, writer, `update job set progress = null where id = $1`, id)
	if n := next(t, listener); n.State.Progress != (job.Progress{}) {
		t.Errorf("notice %+v of no progress", n)
	}
}

func TestFaultInTheTriggerIsAWarningAndTheUpdateCommits(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	config.OnNotice = func(_ *pgxConn, n *pgxNotice) { warnings = append(warnings, n.Message) }
	writer, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close(context.Background())
	watchAll(t, session(t, url))
	id := insert(t, writer)
	exec(t, writer, `drop function jobprogress.counts(jsonb) cascade; drop function jobprogress.cut(text, integer) cascade`)
	exec(t, writer, `update job set status = 'running' where id = $1`, id)
	exec(t, writer, `delete from job where id = $1`, id)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "no notice for job "+string(id)) {
		t.Errorf("warnings %q", warnings)
	}
	var left int
	if err := writer.QueryRow(t.Context(), `select count(*) from job`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows left, error %v", left, err)
	}
}

// Whatever it is that goes wrong when we ask who watches.
func TestFaultInItemIsAWarning(t *testing.T) {
	t.Parallel()
	worker := session(t, pgtest.New(t))
	exec(t, worker, `drop function jobprogress.unwatched(uuid)`)
	exec(t, worker, `begin; select jobprogress.item(gen_random_uuid(), 's1', 'song', 'queued'); commit`)
}

func TestItemRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	worker := session(t, url)
	for call, want := range map[string]string{
		`item($1, 's1', 'song', 'done')`: "must be queued, in_progress, succeeded or failed",
		`item($1, 's1', 'song', null)`:   "must be queued, in_progress, succeeded or failed",
		`item(job_id => $1, item_id => null, item_kind => 'song', status => 'queued')`: "must not be null",
	} {
		_, err := worker.Exec(t.Context(), `select jobprogress.`+call, uuid.NewString())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", call, err, want)
		}
	}
}

func TestInstallIsIdempotentMovesAndLeavesNoTrace(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := session(t, url)
	listener := listen(t, url)
	triggers := func(table string) (n int) {
		err := admin.QueryRow(t.Context(), `select count(*) from pg_trigger where tgrelid = $1::text::regclass and not tgisinternal`, table).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	exec(t, admin, `create schema app; create table app."Odd jobs" (like job including all); alter table app."Odd jobs" alter status drop default, alter status type text, alter type type text`)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	// As earlier versions did.
	exec(t, admin, `create trigger jobprogress_update after update on app."Odd jobs" for each row execute function jobprogress.notify_job()`)
	for _, table := range []string{"job", `app."Odd jobs"`, `app."Odd jobs"`} {
		if err := store.Install(t.Context(), url, store.Installation{Table: table}); err != nil {
			t.Fatal(err)
		}
	}
	if triggers("job") != 0 || triggers(`app."Odd jobs"`) != 1 {
		t.Errorf("%d triggers on the old table, %d on the new one", triggers("job"), triggers(`app."Odd jobs"`))
	}
	// Columns of type text do as well as enums.
	exec(t, admin, `insert into app."Odd jobs" (id, account_id, type, status) values (gen_random_uuid(), gen_random_uuid(), 'anything', 'paused');
		update app."Odd jobs" set status = 'completed'`)
	if n := next(t, listener); n.State.Status != job.Completed {
		t.Errorf("notice %+v", n)
	}

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
	exec(t, admin, `update app."Odd jobs" set status = 'failed'`)
}

func TestInstallSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := session(t, url)
	exec(t, admin, `create table thin (id uuid, status text)`)
	for table, want := range map[string]string{
		"nowhere":   `table "nowhere" does not exist`,
		"thin":      "has no column account_id, completed_at, created_at",
		`it's "odd`: "",
	} {
		err := store.Install(t.Context(), url, store.Installation{Table: table})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("install on %q: error %v, want %q", table, err, want)
		}
	}
}

func TestInstallLeavesATriggerOfSomebodyElseAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := session(t, url)
	exec(t, admin, `create table task (like job); create function mine() returns trigger language plpgsql as 'begin return null; end';
		create trigger jobprogress after update on task for each row execute function mine()`)
	err := store.Install(t.Context(), url, store.Installation{Table: "task"})
	if err == nil || !strings.Contains(err.Error(), "trigger jobprogress that is not ours") || !strings.Contains(err.Error(), "Rename it") {
		t.Errorf("error %v", err)
	}
}

func TestFilesRunAsTheyAre(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := session(t, url)
	for _, script := range []string{sql.Uninstall, sql.Job, sql.Install, sql.Install, sql.Job, sql.Uninstall} {
		if _, err := admin.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
}

// As after a restore that left data out.
func TestWithoutItsKeyNothingBreaks(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	conn, other := listen(t, url), session(t, url)
	exec(t, conn, `delete from jobprogress.secret`)
	id := insert(t, other)
	exec(t, other, `update job set progress = '{"total": 9, "done": 4}'`)
	exec(t, other, `select jobprogress.item($1, 's1', 'song', 'queued')`, id)
	for _, want := range []string{`"done":4`, `"s1"`} {
		n, err := conn.WaitForNotification(t.Context())
		if err != nil || !strings.Contains(n.Payload, want) || strings.Contains(n.Payload, "seal") {
			t.Errorf("notified %v, %v", n, err)
		}
	}
}

func TestInstallNamesAnIDThatIsNoUUID(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	conn := session(t, url)
	exec(t, conn, `create table task (like job)`)
	exec(t, conn, `alter table task alter id type text`)
	err := store.Install(t.Context(), url, store.Installation{Table: "task"})
	if err == nil || !strings.Contains(err.Error(), "column id of table task is no uuid") {
		t.Errorf("error %v", err)
	}
}
