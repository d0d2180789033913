package sql_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
)

func TestWriterNeverBreaksBecauseOfALongError(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	receives(t, listener, id)
	for name, text := range texts() {
		pgtest.Exec(t, writer, `update job set error = $2 where id = $1`, id, text)
		receives(t, listener, id)
		if read := snapshot(t, url, id).State.Error; !isCut(read, text, 1000) {
			t.Errorf("%s: an error of %d characters is read", name, utf8.RuneCountInString(read))
		}
	}
}

func TestOddProgressIsReadAsFarAsItCanBe(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	receives(t, listener, id)
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
		pgtest.Exec(t, writer, `update job set progress = $2 where id = $1`, id, column)
		receives(t, listener, id)
		if got := snapshot(t, url, id).State.Progress; got != want {
			t.Errorf("%.60s is read as %+v, want %+v", column, got, want)
		}
	}
	pgtest.Exec(t, writer, `update job set progress = null where id = $1`, id)
	if got := snapshot(t, url, id).State.Progress; got != (job.Progress{}) {
		t.Errorf("no progress is read as %+v", got)
	}
}

// Values of many megabytes cost the reads of others nothing, and updates that don't touch them neither.
func TestMegabytesInARow(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listener, writer := listen(t, url), pgtest.Connect(t, url)
	id := insert(t, writer)
	pgtest.Exec(t, writer, `update job set progress = jsonb_build_object('total', 3, 'done', repeat('x', 10000000)),
		error = (select string_agg(md5(i::text), '') from generate_series(1, 320000) as i)`)
	receives(t, listener, id, id)
	s := snapshot(t, url, id)
	if s.State.Progress != (job.Progress{Total: 3}) || len(s.State.Error) != 1000 || !strings.HasPrefix(s.State.Error, "c4ca4238a0b923820dcc509a6f75849b") {
		t.Errorf("progress %+v, error of %d characters", s.State.Progress, len(s.State.Error))
	}
	pgtest.Exec(t, writer, `update job set status = 'running'`)
	receives(t, listener, id)
	var plan string
	rows, err := writer.Query(t.Context(), `explain (analyze, buffers, costs off, timing off, summary off) update job set updated_at = now()`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var line string
		rows.Scan(&line)
		plan += line + "\n"
	}
	rows.Close()
	// What is stored out of line are thousands of pages.
	if strings.Contains(plan, "hit=") {
		var hit int
		for field := range strings.FieldsSeq(plan) {
			if digits, ok := strings.CutPrefix(field, "hit="); ok {
				for _, c := range digits {
					hit = hit*10 + int(c-'0')
				}
				break
			}
		}
		if hit > 100 {
			t.Errorf("an update of another column touches %d pages:\n%s", hit, plan)
		}
	}
}

func TestNullAndEmptyColumns(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `alter table job alter status drop default, alter status drop not null, alter status type text, alter account_id drop not null, alter type drop not null`)
	listener := listen(t, url)
	id := insert(t, admin)
	receives(t, listener, id)
	for _, set := range []string{`status = null`, `status = ''`, `status = null, type = null, account_id = null, progress = null`} {
		pgtest.Exec(t, admin, `update job set `+set)
		receives(t, listener, id)
		if s := snapshot(t, url, id); !s.Found || s.State.Status != "" {
			t.Errorf("%s is read as %+v", set, s)
		}
	}
}

func TestOddMoments(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	writer := pgtest.Connect(t, url)
	id := insert(t, writer)
	pgtest.Exec(t, writer, `update job set started_at = '-infinity', completed_at = 'infinity', updated_at = '99999-01-01'`)
	if s := snapshot(t, url, id); !s.Found || s.CompletedAt != nil || s.StartedAt != nil || s.UpdatedAt != nil || s.CreatedAt == nil {
		t.Errorf("snapshot %+v", s)
	}
	if s := snapshot(t, url, job.ID(uuid.NewString())); s.Found {
		t.Errorf("a job that is not there is read as %+v", s)
	}
}

// Their values are not known to triggers; they are read as all others.
func TestVirtualGeneratedColumns(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	kind := "stored" // the only one before PostgreSQL 18
	if pgtest.Query[int](t, admin, `select current_setting('server_version_num')::int`) >= 180000 {
		kind = "virtual"
	}
	pgtest.Exec(t, admin, `alter table job add state int not null default 0;
		alter table job drop status;
		alter table job add status text generated always as (case state when 0 then 'pending' when 1 then 'running' else 'completed' end) `+kind)
	listener := listen(t, url)
	id := insert(t, admin)
	pgtest.Exec(t, admin, `update job set state = 1`)
	receives(t, listener, id, id)
	if s := snapshot(t, url, id); s.State.Status != job.Running {
		t.Errorf("read as %+v", s.State)
	}
}
