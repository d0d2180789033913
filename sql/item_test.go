package sql_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

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

// isCut reports whether got is all of the text, or its beginning.
func isCut(got, text string, characters int) bool {
	if utf8.RuneCountInString(text) <= characters {
		return got == text
	}
	beginning, cut := strings.CutSuffix(got, "...")
	return cut && strings.HasPrefix(text, beginning) && utf8.RuneCountInString(got) == characters && utf8.ValidString(got)
}

func TestItemRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	worker := pgtest.Connect(t, url)
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

// say calls jobprogress.item.
const say = `select jobprogress.item($1, $2, 'song', $3)`

// ids are the items with their statuses, in the order in which they are sent.
func ids(items []job.Item) (all []string) {
	for _, i := range items {
		all = append(all, i.ItemID+" "+i.Status)
	}
	return all
}

func TestItemsAreReadInTheOrderInWhichTheyWereTold(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	id := insert(t, worker)
	pgtest.Exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'failed', 'Björk', 3, 4, 5)`, id)
	pgtest.Exec(t, worker, say, id, "s2", "queued")
	pgtest.Exec(t, worker, say, id, "s1", "in_progress")
	s := snapshot(t, url, id)
	if got := ids(s.Items); !slices.Equal(got, []string{"s2 queued", "s1 in_progress"}) || !s.AllItems {
		t.Errorf("items %v, all %v", got, s.AllItems)
	}
	pgtest.Exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'succeeded', 'Björk', 3, 4, 5)`, id)
	want := `{"itemId":"s1","itemKind":"song","status":"succeeded","label":"Björk","index":3,"count":4,"total":5}`
	if got, _ := json.Marshal(snapshot(t, url, id).Items[1]); string(got) != want {
		t.Errorf("item %s, want %s", got, want)
	}
}

// Of what one read saw the next returns nothing, and nothing else is missing: not what was under way meanwhile either.
func TestALaterReadReturnsOnlyItemsThatAreNew(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker, slow := pgtest.Connect(t, url), pgtest.Connect(t, url)
	id := insert(t, worker)
	pgtest.Exec(t, worker, say, id, "s1", "queued")
	pgtest.Exec(t, slow, `begin`)
	pgtest.Exec(t, slow, say, id, "slow", "queued")
	pgtest.Exec(t, worker, say, id, "s2", "queued")
	first := read(t, url, job.Request{ID: id})
	next := func(seen string) (got []string, all bool) {
		s := read(t, url, job.Request{ID: id, Run: first.Jobs[0].Run, Seen: seen}).Jobs[0]
		return ids(s.Items), s.AllItems
	}
	if got, all := next(first.Seen); len(got) != 0 || all {
		t.Errorf("nothing was sent since, and %v is new, all %v", got, all)
	}
	pgtest.Exec(t, worker, say, id, "s2", "succeeded")
	pgtest.Exec(t, slow, `commit`)
	if got, all := next(first.Seen); !slices.Equal(got, []string{"slow queued", "s2 succeeded"}) || all {
		t.Errorf("new are %v, all %v", got, all)
	}
}

func TestOnlyItemsOfThePresentRunAreRead(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	id := insert(t, worker)
	pgtest.Exec(t, worker, say, id, "early", "queued") // before the job has started
	pgtest.Exec(t, worker, `update job set status = 'running', started_at = '2026-01-01 10:00:00+00'`)
	pgtest.Exec(t, worker, `set timezone = 'Asia/Tokyo'; set datestyle = 'German'`) // a run has one name in every session
	pgtest.Exec(t, worker, say, id, "old", "succeeded")
	first := read(t, url, job.Request{ID: id})
	if got := ids(first.Jobs[0].Items); !slices.Equal(got, []string{"early queued", "old succeeded"}) {
		t.Errorf("items %v", got)
	}
	pgtest.Exec(t, worker, `begin; update job set started_at = '2026-01-01 11:00:00+00'; select jobprogress.item('`+string(id)+`', 'new', 'song', 'queued'); commit`)
	s := read(t, url, job.Request{ID: id, Run: first.Jobs[0].Run, Seen: first.Seen}).Jobs[0]
	if got := ids(s.Items); !slices.Equal(got, []string{"new queued"}) || !s.AllItems {
		t.Errorf("items %v, all %v", got, s.AllItems)
	}
	pgtest.Exec(t, worker, `update job set started_at = null`)
	pgtest.Exec(t, worker, say, id, "soon", "queued") // before the next run
	pgtest.Exec(t, worker, `update job set started_at = '2026-01-01 12:00:00+00'`)
	for range 2 {
		if got := ids(snapshot(t, url, id).Items); !slices.Equal(got, []string{"soon queued"}) {
			t.Errorf("items %v", got)
		}
		pgtest.Exec(t, worker, `select jobprogress.sweep()`)
	}
}

func TestAtMost256ItemsAreReadFinishedOnesForgottenFirst(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	id := insert(t, worker)
	pgtest.Exec(t, worker, `select jobprogress.item($1, 'open' || i, 'song', 'in_progress') from generate_series(1, 200) as i`, id)
	pgtest.Exec(t, worker, `select jobprogress.item($1, 'done' || i, 'song', 'succeeded') from generate_series(1, 200) as i`, id)
	check := func(when string) {
		t.Helper()
		items := ids(snapshot(t, url, id).Items)
		if len(items) != 256 || items[0] != "open1 in_progress" || items[200] != "done145 succeeded" || items[255] != "done200 succeeded" {
			t.Errorf("%s: %d items: %v", when, len(items), items)
		}
	}
	check("before the sweep")
	pgtest.Exec(t, worker, `select jobprogress.sweep()`)
	if kept := pgtest.Query[int](t, worker, `select count(*) from jobprogress.item_log`); kept != 256 {
		t.Errorf("%d rows are kept", kept)
	}
	check("after it")
}

// The table's columns may have the names of our parameters.
func TestColumnsOfTheNamesOfParameters(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	pgtest.Exec(t, worker, `alter table job add job_id uuid, add job_ids uuid[], add run text, add status_of text`)
	id := insert(t, worker)
	pgtest.Exec(t, worker, `update job set status = 'running', started_at = now()`)
	pgtest.Exec(t, worker, say, id, "s1", "queued")
	if run := pgtest.Query[string](t, worker, `select coalesce(run, 'unknown') from jobprogress.item_log`); run == "unknown" {
		t.Error("the run of the item is unknown")
	}
	if got := ids(snapshot(t, url, id).Items); !slices.Equal(got, []string{"s1 queued"}) {
		t.Errorf("items %v", got)
	}
}

func TestWriterNeverBreaksBecauseOfALongLabel(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	id := insert(t, worker)
	for name, text := range texts() {
		pgtest.Exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'queued', label => $2)`, id, text)
		if label := snapshot(t, url, id).Items[0].Label; !isCut(label, text, 200) {
			t.Errorf("%s: label of %d characters", name, utf8.RuneCountInString(label))
		}
	}
}

// What can't be kept is a warning, whatever the reason.
func TestItemThatCannotBeKeptIsAWarning(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, call, want string }{
		"long id":               {``, `item($1, repeat('x', 1001), 'song', 'queued')`, "more than 1,000 characters"},
		"long kind":             {``, `item($1, 's1', repeat('x', 1001), 'queued')`, "more than 1,000 characters"},
		"read-only transaction": {`set default_transaction_read_only = on`, `item($1, 's1', 'song', 'queued')`, "read-only"},
		"no log":                {`drop table jobprogress.item_log`, `item($1, 's1', 'song', 'queued')`, "item_log is missing"},
		"no job table":          {`drop table job`, `item($1, 's1', 'song', 'queued')`, "the run of job"},
		"no such column":        {`alter table job rename started_at to begun`, `item($1, 's1', 'song', 'queued')`, "the run of job"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			listen(t, url)
			worker, warned := warnings(t, url)
			pgtest.Exec(t, worker, c.before)
			pgtest.Exec(t, worker, `select jobprogress.`+c.call, uuid.NewString())
			if len(*warned) != 1 || !strings.Contains((*warned)[0], c.want) {
				t.Errorf("warnings %q, want %q", *warned, c.want)
			}
		})
	}
}

// Two transactions that tell of the same items in opposite order would wait for one another if items were updated.
func TestWorkersDoNotWaitForOneAnother(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	first, second := pgtest.Connect(t, url), pgtest.Connect(t, url)
	id := insert(t, first)
	tell := func(order string) string {
		return `select jobprogress.item('` + string(id) + `', 's' || i, 'song', 'queued') from generate_series(1, 1000) as i order by i ` + order
	}
	for _, worker := range []int{1, 2} {
		conn, order := first, "asc"
		if worker == 2 {
			conn, order = second, "desc"
		}
		pgtest.Exec(t, conn, `set lock_timeout = '5s'; begin`)
		pgtest.Exec(t, conn, tell(order))
	}
	pgtest.Exec(t, second, tell("asc"))
	pgtest.Exec(t, first, tell("desc"))
	pgtest.Exec(t, first, `commit`)
	pgtest.Exec(t, second, `commit`)
	items := snapshot(t, url, id).Items
	if len(items) != 256 || items[255].ItemID != "s1" {
		t.Errorf("%d items, the newest %v", len(items), items[len(items)-1])
	}
}

func TestManyItemsOfOneTransactionTakeNoSubtransactionIDs(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	id := insert(t, worker)
	pgtest.Exec(t, worker, `begin`)
	pgtest.Exec(t, worker, `select jobprogress.item($1, 's' || i, 'song', 'queued') from generate_series(1, 10000) as i`, id)
	// Each would make ids of its own: the next transaction's is the one after ours.
	xid := pgtest.Query[int64](t, worker, `select pg_current_xact_id()::text::bigint`)
	pgtest.Exec(t, worker, `savepoint a; select pg_current_xact_id()`)
	if pgtest.Query[int](t, worker, `select current_setting('server_version_num')::int`) >= 160000 {
		count := pgtest.Query[int](t, pgtest.Connect(t, url), `select s.subxact_count from pg_stat_get_backend_idset() as b, pg_stat_get_backend_subxact(b) as s
			where pg_stat_get_backend_pid(b) = $1`, worker.PgConn().PID())
		if count != 0 {
			t.Errorf("%d subtransaction ids", count)
		}
	}
	distinct := pgtest.Query[int](t, worker, `select count(distinct xmin::text) from jobprogress.item_log`)
	if own := pgtest.Query[int64](t, worker, `select min(xid::text::bigint) from jobprogress.item_log`); distinct != 1 || own != xid {
		t.Errorf("rows of %d (sub)transactions, the first %d, the transaction is %d", distinct, own, xid)
	}
}

// In a serializable transaction the job's row is not read, which would add to its conflicts.
func TestItemInASerializableTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	first, second := pgtest.Connect(t, url), pgtest.Connect(t, url)
	id := insert(t, first)
	pgtest.Exec(t, first, `update job set started_at = now()`)
	pgtest.Exec(t, first, `begin isolation level serializable`)
	pgtest.Exec(t, second, `begin isolation level serializable`)
	pgtest.Exec(t, first, say, id, "s1", "queued")
	pgtest.Exec(t, second, say, id, "s2", "queued")
	pgtest.Exec(t, first, `update job set status = 'running'`)
	pgtest.Exec(t, first, `commit`)
	pgtest.Exec(t, second, `insert into account (id, name) values (gen_random_uuid(), 'x')`)
	pgtest.Exec(t, second, `commit`)
	if got := ids(snapshot(t, url, id).Items); !slices.Equal(got, []string{"s1 queued", "s2 queued"}) {
		t.Errorf("items %v", got)
	}
}

// Labels come out as they went in, whatever the database's encoding and the sessions' settings.
func TestItemsInDatabasesOfAnyEncoding(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "WIN1252", "SQL_ASCII", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			url := pgtest.NewEncoded(t, encoding)
			listener, worker := listen(t, url), pgtest.Connect(t, url)
			label := "Björk"
			if encoding == "EUC_JP" {
				label = "坂本龍一"
			}
			pgtest.Exec(t, worker, `set client_encoding = 'UTF8'`)
			id := insert(t, worker)
			pgtest.Exec(t, worker, `update job set error = $1`, label)
			pgtest.Exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'queued', label => $2)`, id, label)
			receives(t, listener, id, id, id)
			s := snapshot(t, url, id)
			if s.State.Error != label || len(s.Items) != 1 || s.Items[0].Label != label {
				t.Errorf("error %q, items %+v", s.State.Error, s.Items)
			}
		})
	}
}

// A role's own settings must not keep the service from reading.
func TestRoleSettingsDoNotMatter(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	id := insert(t, admin)
	pgtest.Exec(t, admin, `update job set error = 'Björk', started_at = '2026-02-01 10:00:00+00'`)
	want := snapshot(t, url, id)
	for name, value := range map[string]string{
		"datestyle": "German", "client_encoding": "latin1", "bytea_output": "escape", "timezone": "Asia/Tokyo", "extra_float_digits": "-15",
		"default_transaction_isolation": "serializable", "standard_conforming_strings": "off", "intervalstyle": "sql_standard",
		"statement_timeout": "10000", "search_path": "",
	} {
		who := role(t, admin, "service")
		install(t, url, store.Installation{ServiceRole: who})
		pgtest.Exec(t, admin, fmt.Sprintf(`alter role %s set %s = '%s'`, quoted(who), name, value))
		if got := snapshot(t, pgtest.WithRole(url, who), id); got.State != want.State || !got.StartedAt.Equal(*want.StartedAt) || got.Run != want.Run {
			t.Errorf("with %s = %s it reads %+v, want %+v", name, value, got, want)
		}
		s, err := store.Open(func() string { return pgtest.WithRole(url, who) }, 1)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.Snapshot(t.Context(), []job.ID{id})
		s.Close()
		if err != nil || rows[0].State != want.State || !rows[0].StartedAt.Equal(*want.StartedAt) {
			t.Errorf("with %s = %s the pool reads %+v, %v", name, value, rows, err)
		}
	}
}
