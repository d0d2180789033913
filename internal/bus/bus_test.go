package bus_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

const ada = "00000000-0000-4000-8000-00000000000a"

// deadline is for what should take milliseconds.
const deadline = 30 * time.Second

func TestWhatCommitsIsSent(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'in_progress', 'Artist – Title')`, id)
	r.sees(w, `"itemId":"s1"`)
	pgtest.Exec(t, r.admin, `update job set status = 'completed'`)
	r.sees(w, `"completed"`)
}

func TestDeletedRowIsSent(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	pgtest.Exec(t, r.admin, `delete from job`)
	r.sees(w, "job no longer exists")
}

// A second server, one that starts later and a page opened in the middle of a job all show the same items.
func TestItemsAreTheSameOnEveryServer(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	second := start(t, url, time.Hour)
	second.live(true)
	id := r.insert()
	first, other := r.watch(id), second.watch(id)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'queued', 'Björk')`, id)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 's2', 'song', 'queued')`, id)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'succeeded', 'Björk')`, id)
	restarted := start(t, url, time.Hour)
	restarted.live(true)
	for name, w := range map[string]*hub.Subscriber{"first": first, "second": other, "late": second.watch(id), "restarted": restarted.watch(id)} {
		if !sent(w, `"itemId":"s1","itemKind":"song","status":"succeeded","label":"Björk"`) || !sent(w, `"s2"`) {
			t.Errorf("the %s viewer misses an item", name)
		}
	}
}

// The listening session says, too, that a server is there; and of a job that has items, they are kept without any.
func TestItemsAreKeptWhileTheReadingSessionIsAway(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	for i := range 5 {
		pgtest.Exec(t, r.admin, `do $$ begin
			perform pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'jobprogress read';
			perform pg_sleep(0.02);
		end $$`)
		pgtest.Exec(t, r.admin, `select jobprogress.item($1, $2, 'song', 'queued')`, id, fmt.Sprint("s", i))
		r.sees(w, fmt.Sprintf(`"s%d"`, i))
	}
	pgtest.Exec(t, r.admin, `do $$ begin
		perform pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'jobprogress %';
		perform pg_sleep(0.02);
	end $$`)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 'without a server', 'song', 'queued')`, id)
	r.sees(w, "without a server")
}

// The last item that was sent of counts, whichever transaction commits last.
func TestItemsOfTransactionsThatCommitInAnotherOrder(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	early := pgtest.Connect(t, url)
	pgtest.Exec(t, early, `begin`)
	pgtest.Exec(t, early, `select jobprogress.item($1, 's1', 'song', 'in_progress')`, id)
	pgtest.Exec(t, early, `select jobprogress.item($1, 'marker', 'song', 'queued')`, id)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'succeeded')`, id)
	r.sees(w, `"succeeded"`)
	pgtest.Exec(t, early, `commit`)
	r.sees(w, `"marker"`)
	for _, f := range w.Changes(hub.Cursor{}).Frames {
		if strings.Contains(string(f.Data), `"s1"`) && !strings.Contains(string(f.Data), `"succeeded"`) {
			t.Errorf("the viewer was taken back to %s", f.Data)
		}
	}
}

func TestNotificationsOfAnybodyAreHarmless(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	pgtest.Exec(t, r.admin, `notify jobprogress, 'garbage'`)
	pgtest.Exec(t, r.admin, `notify jobprogress`)
	pgtest.Exec(t, r.admin, `select pg_notify('jobprogress', repeat('x', 7999))`)
	pgtest.Exec(t, r.admin, `select pg_notify('jobprogress', '`+uuid.NewString()+`')`)
	pgtest.Exec(t, r.admin, `select pg_notify('jobprogress', '`+string(id)+`')`)
	pgtest.Exec(t, r.admin, `notify jobprogress, 'probe forged'`)
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	r.counts(`jobprogress_notifications_total{of="malformed"} 3`)
	r.counts(`jobprogress_notifications_total{of="unwatched"} 1`)
	r.live(true)
}

// Whichever of the two sessions dies, what was changed meanwhile is read.
func TestSessionTerminated(t *testing.T) {
	t.Parallel()
	for _, session := range []string{"listen", "read"} {
		t.Run(session, func(t *testing.T) {
			t.Parallel()
			r := start(t, pgtest.New(t), time.Hour)
			r.live(true)
			id := r.insert()
			w := r.watch(id)
			for done := range 5 {
				r.terminate("jobprogress " + session)
				// Notified to nobody, or while nobody holds the lock.
				pgtest.Exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $1::int)`, done+1)
				pgtest.Exec(t, r.admin, `select jobprogress.item($1, $2, 'song', 'queued')`, id, fmt.Sprint("s", done))
				r.sees(w, fmt.Sprint(`"done":`, done+1))
				r.counts(fmt.Sprintf(`jobprogress_bus_reconnects_total{session=%q} %d`, session, done+1))
				r.live(true)
			}
		})
	}
}

// An application's own trigger, or a function in RETURNING, writes the row again before our trigger fires for the first
// time. What commits is shown, and nothing else.
func TestViewersSeeWhatCommitsWhateverTheApplicationsTriggersDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ define, run, want string }{
		"trigger that sorts before ours": {
			`create function retry() returns trigger language plpgsql as $$ begin
				update job set status = 'pending', progress = '{"total": 9, "done": 1}' where id = new.id; return null; end $$;
			create trigger auto_retry after update on job for each row when (new.status = 'failed') execute function retry()`,
			`update job set status = 'failed' where id = $1`, `"pending"`,
		},
		"function in returning": {
			`create function finish(job_id uuid) returns int language sql volatile as $$
				update job set status = 'completed' where id = job_id returning 1 $$`,
			`update job set progress = '{"total": 9, "done": 9}' where id = $1 returning finish(id)`, `"completed"`,
		},
		"trigger of one row that updates another": {
			`create function cascade() returns trigger language plpgsql as $$ begin
				update job set progress = '{"total": 9, "done": 7}' where id <> new.id; return null; end $$;
			create trigger a_cascade after update on job for each row when (new.progress is null) execute function cascade()`,
			`update job set progress = case id when $1 then '{"total": 9, "done": 3}'::jsonb end`, `"done":7`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, pgtest.New(t), time.Hour)
			r.live(true)
			id := r.insert()
			if name == "trigger of one row that updates another" {
				r.insert()
			}
			pgtest.Exec(t, r.admin, c.define)
			w := r.watch(id)
			pgtest.Exec(t, r.admin, c.run, id)
			r.sees(w, c.want)
			for _, f := range w.Changes(hub.Cursor{}).Frames {
				if strings.Contains(string(f.Data), `"failed"`) && strings.Contains(string(f.Data), "status") {
					t.Errorf("the viewer is sent %s, which never committed", f.Data)
				}
			}
		})
	}
}

// Each server receives the probes of all, and must not take them for its own.
func TestTwoServersProbeAndBothStayLive(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	one, two := start(t, url, time.Hour), start(t, url, time.Hour)
	one.live(true)
	two.live(true)
	for range 500 {
		pgtest.Exec(t, one.admin, `notify jobprogress, 'probe another server''s'`)
	}
	time.Sleep(2 * 5 * time.Second) // two rounds of probes
	for _, r := range []*running{one, two} {
		r.live(true)
		r.counts(`jobprogress_bus_reconnects_total{session="listen"} 0`)
		r.counts(`jobprogress_bus_reconnects_total{session="read"} 0`)
	}
}

// What nobody notifies is found, counted and named in the log.
func TestChangesThatNobodyNotifies(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]string{
		"trigger disabled":         `alter table job disable trigger user`,
		"session_replication_role": `set session_replication_role = replica`,
		"notify off":               `set jobprogress.notify = off`,
		"table swapped":            `create table job_new (like job including all); insert into job_new select * from job; alter table job rename to job_old; alter table job_new rename to job`,
		"child that inherits":      `create table child () inherits (job); insert into child select * from job; delete from only job`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, pgtest.New(t), 500*time.Millisecond)
			r.live(true)
			id := r.insert()
			w := r.watch(id)
			r.counts(`jobprogress_buckets{state="notified"} 1`)
			pgtest.Exec(t, r.admin, silence)
			for done, counted := 1, false; !counted; done++ { // the first may be read before the topic counts as notified
				pgtest.Exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $2::int) where id = $1`, id, done)
				r.sees(w, fmt.Sprint(`"done":`, done))
				time.Sleep(time.Second) // two backstops
				counted = !r.has(`jobprogress_unnotified_changes_total 0`)
				if done > 20 {
					t.Fatal("the changes are not counted")
				}
			}
			r.says("changes are not being notified", "trigger", "swapped", "session_replication_role", "jobprogress.notify")
		})
	}
}

func TestNotInstalled(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	r := start(t, url, time.Hour)
	id := r.insert()
	r.says("Run jobprogress install")
	_, err := r.hub.Subscribe(t.Context(), id)
	if err == nil || !strings.Contains(err.Error(), "Run jobprogress install") {
		t.Errorf("error %v does not say what to do", err)
	}
	r.counts(`jobprogress_bus_live 0`)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	r.live(true)
	r.sees(r.watch(id), "running")
}

func TestOtherVersionsOfTheSQLAreNamed(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{"1": "run jobprogress install", "4": "upgrade the server"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			pgtest.Exec(t, pgtest.Connect(t, url), `create or replace function jobprogress.attachment() returns jsonb language sql as 'select jsonb_build_object(''version'', `+version+`)'`)
			r := start(t, url, time.Hour)
			r.says("version", want)
			if status, _ := r.hub.Status(); status.Live || !strings.Contains(status.Reason, want) {
				t.Errorf("status %+v", status)
			}
			pgtest.Exec(t, r.admin, `update job set status = 'running'`) // and breaks no writer
			if held := r.locks(256); held != 0 {
				t.Errorf("it holds %d locks", held)
			}
		})
	}
}

// One row that can't be read costs its own viewers, and nobody else.
func TestRowThatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	pgtest.Exec(t, r.admin, `create type odd as enum ('fine'); create function odd_to_jsonb(odd) returns jsonb language plpgsql strict as 'begin raise exception ''cannot be read'' using errcode = ''22000''; end';
		create cast (odd as jsonb) with function odd_to_jsonb(odd);
		alter table job alter progress drop default, alter progress type odd using null`)
	var watched []*hub.Subscriber
	for range 20 {
		id := uuid.NewString()
		pgtest.Exec(t, r.admin, `insert into job (id, account_id, type, status) values ($1, $2, 'matching', 'running')`, id, ada)
		watched = append(watched, r.watch(job.ID(id)))
	}
	bad := uuid.NewString()
	pgtest.Exec(t, r.admin, `insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', 'fine')`, bad, ada)
	if _, err := r.hub.Subscribe(t.Context(), job.ID(bad)); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("the row is read: %v", err)
	}
	pgtest.Exec(t, r.admin, `update job set error = 'slow'`)
	for _, w := range watched {
		r.sees(w, `"slow"`)
	}
	r.live(true)
}
