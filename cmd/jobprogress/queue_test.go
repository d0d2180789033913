package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// step is something that happens to a job, and what its viewer is sent then.
type step struct {
	do   func()
	says string
}

// follow has a viewer follow a job to its end and to the 204 after it. A replica serves for two steps; then it stops, and
// the viewer goes on at another.
func follow(t *testing.T, databaseURL, id string, steps ...step) {
	t.Helper()
	path := streamOf(url.PathEscape(id))
	s := serveForTest(t, databaseURL, "--drain-timeout", "500ms")
	st := s.open(path)
	last := eventID(st.until(`"status":"pending"`))
	for i, step := range steps {
		if i%2 == 1 {
			s.stop()
			st.ends()
			s = serveForTest(t, databaseURL, "--drain-timeout", "500ms")
			st = s.open(path, "Last-Event-ID: "+last)
		}
		step.do()
		last = eventID(st.until(step.says))
	}
	st.ends()
	for _, s := range []*server{s, serveForTest(t, databaseURL, "--drain-timeout", "500ms")} {
		if response, body := s.get(path, "Last-Event-ID: "+last); response.StatusCode != http.StatusNoContent {
			t.Errorf("after the end: %s %q", response.Status, body)
		}
	}
}

// emptyDatabase is an empty one, with a function that runs SQL there.
func emptyDatabase(t *testing.T) (databaseURL string, exec func(string, ...any) func()) {
	t.Helper()
	databaseURL = pgtest.NewEmpty(t)
	pool := pgtest.Pool(t, databaseURL)
	return databaseURL, func(text string, args ...any) func() {
		return func() {
			t.Helper()
			if _, err := pool.Exec(t.Context(), text, args...); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	}
}

func attach(t *testing.T, databaseURL string, i store.Installation) {
	t.Helper()
	i.Warn = func(warning string) { t.Log(warning) }
	if err := store.Install(t.Context(), databaseURL, i); err != nil {
		t.Fatal(err)
	}
}

func TestEachIDTypeFromFirstFrameTo204(t *testing.T) {
	t.Parallel()
	for sqlType, id := range map[string]string{
		"uuid": "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11", "bigint": "9007199254740993", "integer": "7", "text": "user/7?x=1&y#z %é..", "varchar(40)": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
	} {
		t.Run(sqlType, func(t *testing.T) {
			t.Parallel()
			databaseURL, exec := emptyDatabase(t)
			exec(`create table task ("taskId" ` + sqlType + ` primary key, "userId" uuid, state text, progress jsonb)`)()
			attach(t, databaseURL, store.Installation{Table: "task", Mapping: map[string]string{
				"id": "taskId", "owner": `job."userId"`, "status": "job.state", "statuses": "queued=pending,active=running,done=completed",
				"type": "null", "error": "null", "created_at": "null", "started_at": "null", "completed_at": "null", "updated_at": "null",
			}})
			exec(`insert into task values ($1::text::`+sqlType+`, $2, 'queued')`, id, ada)()
			follow(t, databaseURL, id,
				step{exec(`update task set state = 'active', progress = '{"total": 10, "done": 1, "message": "Page 1"}'`), `"done":1,"total":10,"succeeded":0,"failed":0,"message":"Page 1"}`},
				step{exec(`select jobprogress.item($1::text::`+sqlType+`, 's1', 'song', 'in_progress')`, id), `"itemId":"s1"`},
				step{exec(`update task set progress = '"{\"total\": 10, \"done\": 2}"'`), doneEvent(2)},
				step{exec(`update task set state = 'done'`), `"status":"completed"`},
			)
			s := serveForTest(t, databaseURL, "--drain-timeout", "500ms")
			response, body := s.get("/api/jobs/" + url.PathEscape(id))
			if response.StatusCode != http.StatusOK || !strings.Contains(body, `"id":"`+id+`"`) || !strings.Contains(body, `"status":"completed"`) {
				t.Errorf("%s %s", response.Status, body)
			}
		})
	}
}

func TestIDsThatAreNone(t *testing.T) {
	t.Parallel()
	for sqlType, ids := range map[string][]string{
		"bigint": {"x", "007", "+7", "1.0", "9223372036854775808", "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11", "%00", "7%2F7"},
		"text":   {"%00", "%ff", strings.Repeat("x", 201), strings.Repeat("%C3%A9", 101)},
	} {
		t.Run(sqlType, func(t *testing.T) {
			t.Parallel()
			databaseURL, exec := emptyDatabase(t)
			exec(`create table task (id ` + sqlType + ` primary key, account_id text, status text)`)()
			attach(t, databaseURL, store.Installation{Table: "task", Mapping: map[string]string{
				"type": "null", "progress": "null", "error": "null", "created_at": "null", "started_at": "null", "completed_at": "null", "updated_at": "null",
			}})
			s := serveForTest(t, databaseURL, "--drain-timeout", "500ms")
			for _, id := range ids {
				for _, path := range []string{"/api/jobs/" + id, streamOf(id)} {
					if response, body := s.get(path); response.StatusCode != http.StatusBadRequest || !strings.Contains(body, "invalid_job_id") {
						t.Errorf("%s: %s %s", path, response.Status, body)
					}
				}
			}
		})
	}
}

// A queue that deletes the rows of jobs that have succeeded: their viewers see the end.
func TestDeletedMeansCompleted(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	attach(t, databaseURL, store.Installation{Mapping: map[string]string{"deleted": "completed"}})
	s := serveForTest(t, databaseURL, "--drain-timeout", "500ms")
	id := s.insert()
	st := s.open(streamOf(id))
	running := eventID(st.until("running"))
	s.exec(`delete from job`)
	final := eventID(st.until(`"status":"completed"`))
	st.ends()
	others := map[string]string{"nobody's": "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11", "Ben's": s.insert()}
	s.exec(`update job set account_id = $1`, ben)
	var waits sync.WaitGroup
	for name, id := range map[string]string{"the job": id, "nobody's": others["nobody's"], "Ben's": others["Ben's"]} {
		waits.Go(func() {
			if response, body := s.get(streamOf(id), "Last-Event-ID: "+final); response.StatusCode != http.StatusNoContent {
				t.Errorf("%s, after the end: %s %q", name, response.Status, body)
			}
		})
		waits.Go(func() { // else this would tell whose jobs there are
			response, body := s.get(streamOf(id), "Last-Event-ID: "+running)
			if response.StatusCode != http.StatusOK || body != "id: final-deleted\ndata: {\"type\":\"status\",\"status\":\"completed\"}\n\n" {
				t.Errorf("%s, to who missed the end: %s %q", name, response.Status, body)
			}
		})
		waits.Go(func() {
			if response, _ := s.get(streamOf(id)); response.StatusCode != http.StatusNotFound {
				t.Errorf("%s, to a new viewer: %s", name, response.Status)
			}
		})
	}
	waits.Wait()
	// A trigger of the application that moves ended rows away in the same statement.
	s.exec(`create table archive (like job);
		create function archive() returns trigger language plpgsql as 'begin delete from job where id = new.id; insert into archive select new.*; return null; end';
		create trigger archive after update on job for each row when (new.status = 'completed') execute function archive()`)
	id = s.insert()
	st = s.open(streamOf(id))
	st.until("running")
	s.exec(`update job set status = 'completed' where id = $1`, id)
	st.until(`"status":"completed"`)
	st.ends()
	s.exec(`drop trigger archive on job`)

	// What had failed did not succeed.
	id = s.insert()
	st = s.open(streamOf(id))
	st.until("running")
	s.exec(`update job set status = 'failed', error = 'odd' where id = $1`, id)
	failed := eventID(st.until(`"status":"failed"`))
	s.exec(`delete from job where id = $1`, id)
	if response, body := s.get(streamOf(id), "Last-Event-ID: "+failed); response.StatusCode != http.StatusNoContent {
		t.Errorf("after a failure: %s %q", response.Status, body)
	}
}

// The schema is that of Oban's documentation (migration version 12); Oban itself does not run here.
func TestOban(t *testing.T) {
	t.Parallel()
	databaseURL, exec := emptyDatabase(t)
	exec(`create type oban_job_state as enum ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
		create table oban_jobs (
			id bigserial primary key,
			state oban_job_state not null default 'available',
			queue text not null default 'default',
			worker text not null,
			args jsonb not null default '{}',
			errors jsonb[] not null default array[]::jsonb[],
			attempt integer not null default 0,
			max_attempts integer not null default 20,
			inserted_at timestamp not null default timezone('UTC', now()),
			scheduled_at timestamp not null default timezone('UTC', now()),
			attempted_at timestamp,
			completed_at timestamp,
			attempted_by text[],
			discarded_at timestamp,
			priority integer not null default 0,
			tags text[] default array[]::text[],
			meta jsonb default '{}',
			cancelled_at timestamp
		)`)()
	attach(t, databaseURL, store.Installation{Preset: "oban"})
	begin := exec(`update oban_jobs set state = 'executing', attempt = attempt + 1, attempted_at = timezone('UTC', clock_timestamp())`)
	progress := exec(`update oban_jobs set meta = jsonb_set(meta, '{progress}', '{"total": 10, "done": 4}')`)
	for name, steps := range map[string][]step{
		"completed": {{progress, doneEvent(4)}, {exec(`update oban_jobs set state = 'completed', completed_at = timezone('UTC', now())`), `"status":"completed"`}},
		"retried": {
			{exec(`update oban_jobs set state = 'retryable', errors = errors || '{"attempt": 1, "error": "odd"}'::jsonb`), `"status":"pending"`},
			{begin, `"status":"running"`},
			{exec(`update oban_jobs set state = 'completed', completed_at = timezone('UTC', now())`), `"status":"completed"`},
		},
		"discarded": {{exec(`update oban_jobs set state = 'discarded', errors = errors || '{"attempt": 1, "error": "odd"}'::jsonb`), `"status":"failed"`}},
		"cancelled": {{exec(`update oban_jobs set state = 'cancelled', cancelled_at = timezone('UTC', now())`), `"status":"failed"`}},
	} {
		t.Run(name, func(t *testing.T) {
			exec(`truncate oban_jobs restart identity`)()
			exec(`insert into oban_jobs (worker, args) values ('Sync', jsonb_build_object('account_id', $1::text))`, ada)()
			follow(t, databaseURL, "1", append([]step{{begin, `"status":"running"`}}, steps...)...)
		})
	}
}

// The schema is that of GoodJob's documentation (version 4); GoodJob itself does not run here.
func TestGoodJob(t *testing.T) {
	t.Parallel()
	databaseURL, exec := emptyDatabase(t)
	exec(`create table good_jobs (
			id uuid primary key default gen_random_uuid(),
			queue_name text, priority integer, serialized_params jsonb, scheduled_at timestamp, performed_at timestamp, finished_at timestamp,
			error text, created_at timestamp not null default timezone('UTC', now()), updated_at timestamp not null default timezone('UTC', now()),
			active_job_id uuid, concurrency_key text, cron_key text, retried_good_job_id uuid, cron_at timestamp, batch_id uuid,
			batch_callback_id uuid, is_discrete boolean, executions_count integer, job_class text, error_event smallint, labels text[],
			locked_by_id uuid, locked_at timestamp
		)`)()
	attach(t, databaseURL, store.Installation{Preset: "good_job"})
	const id = "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11"
	begin := exec(`update good_jobs set performed_at = timezone('UTC', clock_timestamp()), executions_count = coalesce(executions_count, 0) + 1`)
	end := exec(`update good_jobs set finished_at = timezone('UTC', now()), error = null`)
	for name, steps := range map[string][]step{
		"completed": {{exec(`update good_jobs set serialized_params = jsonb_set(serialized_params, '{progress}', '{"total": 10, "done": 4}')`), doneEvent(4)}, {end, `"status":"completed"`}},
		"retried": {
			{exec(`update good_jobs set performed_at = null, error = 'Odd: odd', scheduled_at = timezone('UTC', now())`), `"status":"pending"`},
			{begin, `"status":"running"`},
			{end, `"status":"completed"`},
		},
		"discarded": {{exec(`update good_jobs set finished_at = timezone('UTC', now()), error = 'Odd: odd'`), `"status":"failed"`}},
	} {
		t.Run(name, func(t *testing.T) {
			exec(`truncate good_jobs`)()
			exec(`insert into good_jobs (id, active_job_id, job_class, serialized_params) values ($1, $1, 'SyncJob', jsonb_build_object('job_class', 'SyncJob', 'arguments', jsonb_build_array(jsonb_build_object('account_id', $2::text))))`, id, ada)()
			follow(t, databaseURL, id, append([]step{{begin, `"status":"running"`}}, steps...)...)
		})
	}
}

// syncArgs are those of a job of River.
type syncArgs struct {
	AccountID string `json:"account_id"`
}

func (syncArgs) Kind() string { return "sync" }

// syncWorker does what it is sent.
type syncWorker struct {
	river.WorkerDefaults[syncArgs]
	pool *pgxpool.Pool
	next chan func(ctx context.Context, job *river.Job[syncArgs]) (done bool, err error)
}

func (w *syncWorker) Work(ctx context.Context, job *river.Job[syncArgs]) error {
	for {
		select {
		case do := <-w.next:
			if done, err := do(ctx, job); done || err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// NextRetry is late enough for a job to be seen waiting for it.
func (w *syncWorker) NextRetry(*river.Job[syncArgs]) time.Time {
	return time.Now().Add(3 * time.Second)
}

// River's own migrations and its own client.
func TestRiver(t *testing.T) {
	t.Parallel()
	databaseURL, _ := emptyDatabase(t)
	pool := pgtest.Pool(t, databaseURL)
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrator.Migrate(t.Context(), rivermigrate.DirectionUp, nil); err != nil {
		t.Fatal(err)
	}
	attach(t, databaseURL, store.Installation{Preset: "river"})

	worker := &syncWorker{pool: pool, next: make(chan func(context.Context, *river.Job[syncArgs]) (bool, error))}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1}}, Workers: workers, FetchPollInterval: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	enqueue := func(maxAttempts int) int64 {
		job, err := client.Insert(t.Context(), syncArgs{ada}, &river.InsertOpts{MaxAttempts: maxAttempts})
		if err != nil {
			t.Fatal(err)
		}
		return job.Job.ID
	}
	start := func() {
		if err := client.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	stop := func() {
		if err := client.StopAndCancel(context.Background()); err != nil {
			t.Error(err)
		}
	}
	tell := func(do func(context.Context, *river.Job[syncArgs]) (bool, error)) func() {
		return func() {
			select {
			case worker.next <- do:
			case <-time.After(deadline):
				t.Fatal("no job is worked on")
			}
		}
	}
	progress := tell(func(ctx context.Context, job *river.Job[syncArgs]) (bool, error) {
		_, err := pool.Exec(ctx, `update river_job set metadata = jsonb_set(metadata, '{progress}', $2) where id = $1`, job.ID, `{"total": 10, "done": 4}`)
		return false, err
	})
	item := tell(func(ctx context.Context, job *river.Job[syncArgs]) (bool, error) {
		return false, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `select jobprogress.item($1, 's1', 'song', 'in_progress')`, job.ID)
			return err
		})
	})
	succeed := tell(func(context.Context, *river.Job[syncArgs]) (bool, error) { return true, nil })
	fail := tell(func(context.Context, *river.Job[syncArgs]) (bool, error) { return true, errors.New("odd") })

	for _, tt := range []struct {
		name        string
		maxAttempts int
		steps       func(id int64) []step
	}{
		{"completed", 1, func(int64) []step {
			return []step{{progress, doneEvent(4)}, {item, `"itemId":"s1"`}, {succeed, `"status":"completed"`}}
		}},
		{"retried", 2, func(int64) []step {
			return []step{{fail, `"status":"pending"`}, {func() {}, `"status":"running"`}, {succeed, `"status":"completed"`}}
		}},
		{"discarded", 1, func(int64) []step {
			return []step{{fail, `{"type":"error","message":"odd"}`}, {func() {}, `"status":"failed"`}}
		}},
		{"cancelled", 1, func(id int64) []step {
			return []step{{func() {
				if _, err := client.JobCancel(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}, `"status":"failed"`}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := enqueue(tt.maxAttempts)
			follow(t, databaseURL, strconv.FormatInt(id, 10), append([]step{{start, `"status":"running"`}}, tt.steps(id)...)...)
			stop()
		})
	}
}
