package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// manyOf is the path of one stream for these jobs.
func manyOf(ids ...string) string { return "/api/jobs/progress?" + url.Values{"id": ids}.Encode() }

// data is the data line of a block, without an id or retry line before it.
func data(block string) string {
	_, data, _ := strings.Cut(block, "data: ")
	return data
}

func TestManyJobsOnOneStream(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		a, b, bens, later := s.insert(), s.insert(), s.insert(), uuid.NewString()
		s.exec(`update job set account_id = $2 where id = $1`, bens, ben)
		s.exec(`select jobprogress.item($1, 's1', 'song', 'in_progress', 'Artist – Title')`, a)
		st := s.open(manyOf(a, b, bens, later, a))
		s.exec(`notify jobprogress`)
		expect := func(want string) string {
			t.Helper()
			for {
				block := st.next()
				if block == ": ping" {
					continue
				}
				if got := data(block); !strings.HasPrefix(got, want) {
					t.Fatalf("got\n%s\nwant\n%s", got, want)
				}
				return block
			}
		}
		expect(`{"type":"job","jobId":"` + a + `","job":{"id":"` + a + `","type":"matching","status":"running","progress":{"done":0,"total":10,"succeeded":0,"failed":0},"error":null,"createdAt":"20`)
		expect(`{"type":"item","jobId":"` + a + `","itemId":"s1","itemKind":"song","status":"in_progress","label":"Artist – Title"}`)
		expect(`{"type":"job","jobId":"` + b + `","job":{"id":"` + b)
		if block := expect(`{"deleted":"gone"}`); !strings.HasPrefix(block, "event: synced\n") {
			t.Errorf("the first batch is followed by %q", block)
		}
		for _, path := range []string{"/api/jobs/progress?", "/api/jobs?"} {
			if response, body := s.get(path+url.Values{"id": {b, bens, later, a}}.Encode(), "Accept: application/json"); response.StatusCode != http.StatusOK ||
				!strings.HasPrefix(body, `[{"id":"`+b) || !strings.Contains(body, `},{"id":"`+a) || strings.Count(body, `"id":`) != 2 {
				t.Errorf("as JSON: %s %s", response.Status, body)
			}
		}
		if response, body := s.get(manyOf("temp-1", a, "temp-2")); response.StatusCode != http.StatusBadRequest || !strings.Contains(body, `"ids":["temp-1","temp-2"]`) {
			t.Errorf("with an id that is none: %s %s", response.Status, body)
		}
		s.progress(b, 5)
		expect(`{"type":"progress","jobId":"` + b + `","done":5,"total":10,"succeeded":5,"failed":0}`)
		// One that comes to be, and one that comes to be the viewer's.
		s.exec(`insert into job (id, account_id, type) values ($1, $2, 'matching')`, later, ada)
		expect(`{"type":"job","jobId":"` + later)
		s.exec(`update job set account_id = $2 where id = $1`, bens, ada)
		expect(`{"type":"job","jobId":"` + bens)
		s.exec(`update job set account_id = $2 where id = $1`, bens, ben)
		expect(`{"type":"removed","jobId":"` + bens + `"}`)
		s.progress(bens, 7) // which is not for us
		s.exec(`delete from job where id = $1`, later)
		expect(`{"type":"removed","jobId":"` + later + `"}`)
		s.exec(`insert into job (id, account_id, type) values ($1, $2, 'matching')`, later, ada)
		expect(`{"type":"job","jobId":"` + later)

		both := s.open(manyOf(a, b))
		both.until(b)
		s.exec(`update job set status = 'failed', error = 'odd' where id = $1`, a)
		expect(`{"type":"error","jobId":"` + a + `","message":"odd"}`)
		expect(`{"type":"status","jobId":"` + a + `","status":"failed"}`)
		s.exec(`update job set status = 'completed' where id = $1`, b)
		final := both.until(`"status":"completed"`)
		both.ends()
		if !strings.HasPrefix(final, "id: final-") {
			t.Errorf("the last event is %q", final)
		}
		other := serveForTest(t, s.databaseURL)
		for _, s := range []*server{s, other} {
			if response, body := s.get(manyOf(a, b), "Last-Event-ID: "+eventID(final)); response.StatusCode != http.StatusNoContent {
				t.Errorf("after the end: %s %q", response.Status, body)
			}
		}
		// A new viewer sees how they ended, and the end; and when one is started again, there is a stream.
		ended := s.open(manyOf(a, b))
		ended.until(`"jobId":"` + a)
		if block := ended.until(`"jobId":"` + b); eventID(block) != eventID(final) {
			t.Errorf("a new viewer is sent %q last", block)
		}
		ended.ends()
		s.exec(`update job set status = 'running' where id = $1`, a)
		again := s.open(manyOf(a, b), "Last-Event-ID: "+eventID(final))
		again.until(`"status":"running"`)
		again.until(`"jobId":"` + b)
	})
}

func TestAccountsList(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		list := func() (ids []string, etag string) {
			t.Helper()
			response, body := s.get("/api/jobs")
			var jobs []struct{ ID string }
			if err := json.Unmarshal([]byte(body), &jobs); err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("%s %s: %v", response.Status, body, err)
			}
			for _, j := range jobs {
				ids = append(ids, j.ID)
			}
			return ids, response.Header.Get("ETag")
		}
		if ids, _ := list(); len(ids) != 0 {
			t.Errorf("jobs %v", ids)
		}
		st := s.open("/api/jobs/progress?heartbeat=1")
		st.until("event: heartbeat")
		old, now := s.insert(), s.insert()
		st.until(`{"type":"job","jobId":"` + old)
		s.exec(`update job set created_at = now() - interval '1 hour' where id = $1`, old)
		bens := s.insert()
		s.exec(`update job set account_id = $2 where id = $1`, bens, ben)
		ids, etag := list()
		if len(ids) != 2 || ids[0] != now || ids[1] != old {
			t.Errorf("the list is %v, want %s and %s", ids, now, old)
		}
		if response, _ := s.get("/api/jobs", "If-None-Match: "+etag); response.StatusCode != http.StatusNotModified {
			t.Errorf("the same again: %s", response.Status)
		}
		s.progress(now, 3)
		st.until(`{"type":"progress","jobId":"` + now + `","done":3`)
		s.exec(`update job set account_id = $2 where id = $1`, now, ben)
		st.until(`{"type":"removed","jobId":"` + now)
		s.exec(`update job set account_id = $2 where id = $1`, now, ada)
		st.until(`{"type":"job","jobId":"` + now)
		s.exec(`update job set status = 'completed', completed_at = now() - interval '9 minutes 58 seconds' where id = $1`, now)
		st.until(`{"type":"status","jobId":"` + now + `","status":"completed"}`)
		st.until(`{"type":"removed","jobId":"` + now) // ten minutes after its end
		s.exec(`update job set status = 'running', completed_at = null where id = $1`, now)
		st.until(`{"type":"job","jobId":"` + now)
		s.exec(`delete from job where id = $1`, old)
		st.until(`{"type":"removed","jobId":"` + old)
		if ids, _ := list(); len(ids) != 1 || ids[0] != now {
			t.Errorf("the list is %v", ids)
		}
		select {
		case <-st.ended:
			t.Error("the list has ended")
		default:
		}
	})
}

// Where rows of jobs that have succeeded are deleted, a list says so, too, and a stream of jobs ends.
func TestManyJobsOfAQueueThatDeletes(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	attach(t, databaseURL, store.Installation{Mapping: map[string]string{"deleted": "completed"}})
	s := serveForTest(t, databaseURL)
	a, b := s.insert(), s.insert()
	list, both := s.open("/api/jobs/progress"), s.open(manyOf(a, b))
	for _, st := range []*stream{list, both} {
		st.until(`: ping`)
	}
	s.exec(`delete from job where id = $1`, a)
	for _, st := range []*stream{list, both} {
		st.until(`{"type":"status","jobId":"` + a + `","status":"completed"}`)
	}
	list.until(`{"type":"removed","jobId":"` + a)
	s.exec(`insert into job (id, account_id, type) values ($1, $2, 'matching')`, a, ada) // it comes to be again
	for _, st := range []*stream{list, both} {
		st.until(`{"type":"job","jobId":"` + a)
	}
	s.exec(`update job set status = 'failed' where id = $1`, b)
	both.until(`{"type":"status","jobId":"` + b)
	s.exec(`delete from job where id = $1`, a)
	final := both.until(`{"type":"status","jobId":"` + a + `","status":"completed"}`)
	both.ends()
	s.exec(`delete from job`)
	for _, s := range []*server{s, serveForTest(t, databaseURL)} {
		if response, body := s.get(manyOf(a, b), "Last-Event-ID: "+eventID(final)); response.StatusCode != http.StatusNoContent {
			t.Errorf("after the end: %s %q", response.Status, body)
		}
	}
}

// A read that hangs says nothing of what reading costs: the next is not put off.
func TestListAfterAReadThatHung(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	list := s.open("/api/jobs/progress")
	list.until("synced")
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	failed := s.metric("jobprogress_reads_failed_total")
	if _, err := tx.Exec(t.Context(), `lock table job in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	s.eventually("a read gave up", func() bool { return s.metric("jobprogress_reads_failed_total") != failed })
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	list.until(`"jobId":"` + s.insert())
	if took := time.Since(began); took > 10*time.Second { // one and a half, and not thirty
		t.Errorf("a new job is listed after %s", took)
	}
}

// What one account's list can't be read for costs the others nothing.
func TestListThatCannotBeRead(t *testing.T) {
	t.Parallel()
	databaseURL, exec := emptyDatabase(t)
	exec(`create table task (id bigint primary key, owner text, status text); create index on task (owner)`)()
	attach(t, databaseURL, store.Installation{Table: "task", Mapping: map[string]string{
		"owner": "job.owner", "status": "case when job.status = 'bad' then 1 / (length(job.status) - 3) else 0 end::text || job.status", "statuses": "0running=running",
		"type": "null", "progress": "null", "error": "null", "created_at": "null", "started_at": "null", "completed_at": "null", "updated_at": "null",
	}})
	exec(`insert into task values (1, 'ada', 'running'), (2, 'ben', 'bad')`)()
	s := serveForTest(t, databaseURL)
	as := func(account string) string { return "Authorization: Bearer " + token(t, account, time.Hour) }
	good := s.open("/api/jobs/progress", as("ada"))
	good.until(`"jobId":"1"`)
	if response, body := s.get("/api/jobs/progress", as("ben"), "Accept: text/event-stream"); response.StatusCode != http.StatusOK || !strings.Contains(body, "database_unavailable") {
		t.Errorf("a list that can't be read: %s %q", response.Status, body)
	}
	for id := range 5 {
		exec(`insert into task values ($1, 'ada', 'running')`, id+10)()
		good.until(`"jobId":"` + strconv.Itoa(id+10))
	}
}

// At most a hundred, the newest.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	s.exec(`insert into job (id, account_id, type, created_at) select gen_random_uuid(), $1, 'matching', now() - i * interval '1 minute' from generate_series(1, 130) as i`, ada)
	st := s.open("/api/jobs/progress")
	seen := make(map[string]bool)
	for block := st.next(); block != ": ping"; block = st.next() {
		if strings.Contains(block, `{"type":"job"`) {
			seen[data(block)] = true
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d jobs", len(seen))
	}
	newest := s.insert()
	st.until(`{"type":"job","jobId":"` + newest)
	st.until(`"type":"removed"`) // the oldest
}

func TestManyJobsAreRefusedWithASentence(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	s := serveForTest(t, databaseURL)
	var ids []string
	for range 101 {
		ids = append(ids, uuid.NewString())
	}
	for path, code := range map[string]string{manyOf(ids...): "too_many_ids", manyOf("x"): "invalid_job_id", manyOf(""): "invalid_job_id", "/api/jobs/progress?id=a;b": "invalid_job_id", "/api/jobs/progress?id=%zz": "invalid_job_id"} {
		if response, body := s.get(path); response.StatusCode != http.StatusBadRequest || !strings.Contains(body, code) {
			t.Errorf("%.60s: %s %s", path, response.Status, body)
		}
	}
	for _, path := range []string{"/api/jobs", "/api/jobs/progress", manyOf(ids[0])} {
		if response, _ := s.get(path, "Authorization: "); response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a token: %s", path, response.Status)
		}
	}
	open := serveForTest(t, databaseURL, "--jwt-secret", "", "--insecure-no-auth")
	for _, path := range []string{"/api/jobs", "/api/jobs/progress"} {
		if response, body := open.get(path); response.StatusCode != http.StatusBadRequest || !strings.Contains(body, "no_account") {
			t.Errorf("%s without authentication: %s %s", path, response.Status, body)
		}
	}
	id := s.insert()
	open.open(manyOf(id)).until(id)
}

// Owners of each type are found, and compared as text.
func TestListsByTypeOfOwner(t *testing.T) {
	t.Parallel()
	for sqlType, tt := range map[string]struct {
		owner string
		not   []string // accounts that look alike
	}{
		"uuid":        {ada, []string{"x", ben}},
		"bigint":      {"42", []string{"042", "+42", "42.0", "99999999999999999999", "x"}},
		"integer":     {"42", []string{"042", "9999999999"}},
		"text":        {"user 42", []string{"User 42", "user 42 "}},
		"varchar(20)": {"user 42", []string{"User 42"}},
		"numeric":     {"42", []string{"42.0"}},
	} {
		t.Run(sqlType, func(t *testing.T) {
			t.Parallel()
			databaseURL, exec := emptyDatabase(t)
			exec(`create table task (id bigint primary key, owner ` + sqlType + `, status text)`)()
			attach(t, databaseURL, store.Installation{Table: "task", Mapping: map[string]string{
				"owner": "job.owner", "type": "null", "progress": "null", "error": "null", "created_at": "null", "started_at": "null", "completed_at": "null", "updated_at": "null",
			}})
			exec(`insert into task values (7, $1::text::`+sqlType+`, 'running'), (8, null, 'running'), (9, $1::text::`+sqlType+`, 'completed')`, tt.owner)()
			s := serveForTest(t, databaseURL)
			if _, body := s.get("/api/jobs", "Authorization: Bearer "+token(t, tt.owner, time.Hour)); !strings.Contains(body, `[{"id":"7"`) || strings.Contains(body, `"9"`) {
				t.Errorf("its owner is answered %s", body)
			}
			for _, account := range tt.not {
				if _, body := s.get("/api/jobs", "Authorization: Bearer "+token(t, account, time.Hour)); body != "[]\n" {
					t.Errorf("%q is answered %s", account, body)
				}
			}
		})
	}
}

func TestWatchShowsTheAccountsJobs(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"watch", "--url", s.url, "--token", token(t, ada, time.Hour)}, noEnv, write, io.Discard)
		write.Close()
	}()
	lines := bufio.NewScanner(read)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
		}
		t.Errorf("it does not say %q", want)
	}
	until(id[:8] + " progress 0/10")
	until(id[:8] + " status running")
	later := s.insert()
	until(later[:8] + " status running")
	s.exec(`update job set progress = '{"total": 10, "done": 4, "message": "Page 4"}' where id = $1`, later)
	until(later[:8] + " progress 4/10 Page 4")
	s.exec(`update job set status = 'failed', error = 'odd' where id = $1`, id)
	until(id[:8] + " error odd")
	until(id[:8] + " status failed")
	cancel()
	for lines.Scan() {
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
