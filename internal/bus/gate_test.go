package bus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// in inserts a job of a bucket.
func (r *running) in(bucket byte) job.ID {
	r.t.Helper()
	id := uuid.New()
	id[15] = bucket
	pgtest.Exec(r.t, r.admin, `insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 9}')`, id.String(), ada)
	return job.ID(id.String())
}

// A transaction straddles what becomes of its bucket's lock: it updates the job twice and commits, while the lock is
// taken, lost with its session and taken again, in every order of the two.
func TestTransactionsThatStraddleTheGate(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	writer := pgtest.Connect(t, url)
	orders := merges([]string{"first", "second", "commit"}, []string{"watch", "lose", "lose"})
	if len(orders) != 20 {
		t.Fatalf("%d orders", len(orders))
	}
	for i, order := range orders {
		r.straddle(r.in(byte(i)), writer, order)
	}
}

// merges are all orders of two sequences of steps.
func merges(a, b []string) (all [][]string) {
	if len(a) == 0 || len(b) == 0 {
		return [][]string{slices.Concat(a, b)}
	}
	for _, rest := range merges(a[1:], b) {
		all = append(all, append([]string{a[0]}, rest...))
	}
	for _, rest := range merges(a, b[1:]) {
		all = append(all, append([]string{b[0]}, rest...))
	}
	return all
}

func (r *running) straddle(id job.ID, writer *pgx.Conn, order []string) {
	r.t.Helper()
	update := func(done int) {
		pgtest.Exec(r.t, writer, fmt.Sprintf(`update job set progress = '{"total": 9, "done": %d}' where id = '%s'`, done, id))
	}
	pgtest.Exec(r.t, writer, `begin`)
	var w *hub.Subscriber
	for _, step := range order {
		switch step {
		case "first":
			update(1)
		case "second":
			update(2)
		case "commit":
			pgtest.Exec(r.t, writer, `commit`)
		case "watch":
			w = r.watch(id)
		case "lose":
			r.terminate("jobprogress read")
			r.live(false)
			r.live(true)
		}
	}
	if !sent(w, `"done":2`) {
		r.t.Errorf("%v: the viewer does not see the last state", order)
	}
	for _, f := range w.Changes(hub.Cursor{}).Frames {
		if strings.Contains(string(f.Data), `"done":1`) {
			r.t.Errorf("%v: the viewer sees what never committed", order)
		}
	}
}

func TestLongTransactionNeitherBlocksNorIsBlocked(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	worker := pgtest.Connect(t, url)
	id := r.insert()
	pgtest.Exec(t, worker, `begin`)
	pgtest.Exec(t, worker, `update job set progress = '{"total": 9, "done": 1}' where id = $1`, id)
	pgtest.Exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'queued')`, id)
	w := r.watch(id) // waits for nobody
	r.sees(w, `"total":9`)
	pgtest.Exec(t, worker, `set local lock_timeout = 1`) // nor does the worker
	pgtest.Exec(t, worker, `update job set progress = '{"total": 9, "done": 2}' where id = $1`, id)
	pgtest.Exec(t, worker, `select jobprogress.item($1, 's2', 'song', 'queued')`, id)
	pgtest.Exec(t, worker, `set local lock_timeout = 0`) // its commit may wait for that of another test's, which notifies too
	other := r.insert()
	r.sees(r.watch(other), `"total":9`)
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 7}' where id = $1`, other)
	pgtest.Exec(t, worker, `commit`)
	r.sees(w, `"done":2`)
	r.sees(w, `"s1"`) // told of while nobody watched
	r.sees(w, `"s2"`)
}

func TestLocksAreTakenForWhatIsWatchedAndGivenBack(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	w := r.watch(r.in(1))
	r.watch(r.in(1))
	r.watch(r.in(2))
	r.counts(`jobprogress_buckets{state="notified"} 2`)
	gone := r.watch(r.in(3))
	pgtest.Exec(t, r.admin, `delete from job where get_byte(uuid_send(id), 15) = 3`)
	r.sees(gone, "no longer exists")
	gone.Close()
	none, err := r.hub.Subscribe(t.Context(), job.ID(uuid.NewString()))
	if err != nil {
		t.Fatal(err)
	}
	if _, found := none.Owner(); found {
		t.Error("a job that is not there is found")
	}
	none.Close()
	r.counts(`jobprogress_buckets{state="notified"} 2`)
	for end := time.Now().Add(deadline); r.locks(256) != 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d locks, want those of two buckets", r.locks(256))
		}
	}
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
}

// flood changes a job 2,000 times as fast as can be.
func (r *running) flood(id job.ID, from int) {
	r.t.Helper()
	pgtest.Exec(r.t, r.admin, fmt.Sprintf(`do $$ begin
		for i in 1..2000 loop
			update job set progress = jsonb_build_object('total', 10000, 'done', %d + i) where id = '%s';
			commit;
		end loop;
	end $$`, from, id))
}

// Too much for the budget is polled, what is slow is notified again, and viewers see both.
func TestFastWorkIsPolled(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	fast, slow := r.in(1), r.in(2)
	fastViewer, slowViewer := r.watch(fast), r.watch(slow)
	r.counts(`jobprogress_buckets{state="notified"} 2`)
	for round := range 2 {
		r.flood(fast, round*2000)
		r.sees(fastViewer, fmt.Sprint(`"done":`, (round+1)*2000))
		r.counts(fmt.Sprintf(`jobprogress_bucket_switches_total{to="polled"} %d`, round+1))
		pgtest.Exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $2::int) where id = $1`, slow, round+1)
		r.sees(slowViewer, fmt.Sprint(`"done":`, round+1))
		pgtest.Exec(t, r.admin, `select jobprogress.item($1, $2, 'song', 'queued')`, fast, fmt.Sprint("s", round))
		r.sees(fastViewer, fmt.Sprintf(`"s%d"`, round))
		r.counts(`jobprogress_buckets{state="polled"} 0`)
		r.counts(`jobprogress_buckets{state="notified"} 2`)
	}
	pgtest.Exec(t, r.admin, `update job set status = 'completed'`)
	r.sees(fastViewer, `"completed"`)
	r.sees(slowViewer, `"completed"`)
}

// Anybody who may connect may take any advisory lock. That keeps us from ours, not viewers from the row's state.
func TestLockThatSomebodyElseHolds(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	stranger := pgtest.Connect(t, url)
	pgtest.Exec(t, stranger, `select pg_advisory_lock($1, 1)`, store.LockClass)
	w := r.watch(r.in(1))
	for done := range 3 {
		pgtest.Exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $1::int)`, done+1)
		r.sees(w, fmt.Sprint(`"done":`, done+1))
		pgtest.Exec(t, stranger, `update job set progress = jsonb_build_object('total', 9, 'done', $1::int)`, done+4) // to the session that holds it nobody watches
		r.sees(w, fmt.Sprint(`"done":`, done+4))
	}
	r.counts(`jobprogress_buckets{state="polled"} 1`)
	pgtest.Exec(t, stranger, `select pg_advisory_unlock_all()`)
	r.counts(`jobprogress_buckets{state="notified"} 1`)
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 8}'`)
	r.sees(w, `"done":8`)
}

// The database's table of locks is full, so it refuses ours.
func TestNoRoomForLocks(t *testing.T) {
	t.Parallel()
	_, url := pgtest.Own(t, "max_locks_per_transaction=10", "max_connections=20")
	r := start(t, url, time.Hour)
	r.live(true)
	const room, watched = 30, 60
	var ids []job.ID
	for b := range byte(watched) {
		ids = append(ids, r.in(b))
	}
	hog := pgtest.Connect(t, url)
	_, err := hog.Exec(t.Context(), `select pg_advisory_lock(1, i) from generate_series(1, 1000000) as i`)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "53200" {
		t.Fatalf("the table is not full: %v", err)
	}
	pgtest.Exec(t, hog, `select pg_advisory_unlock(1, i) from generate_series(1, $1) as i`, room)
	var subscribers []*hub.Subscriber
	for _, id := range ids {
		subscribers = append(subscribers, r.watch(id))
	}
	r.counts(fmt.Sprintf(`jobprogress_buckets{state="polled"} %d`, watched))
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`) // for which there is room again
	for _, w := range subscribers {
		r.sees(w, `"done":4`)
	}
	pgtest.Exec(t, hog, `select pg_advisory_unlock_all()`)
	r.counts(fmt.Sprintf(`jobprogress_buckets{state="notified"} %d`, watched))
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 5}'`)
	for _, w := range subscribers {
		r.sees(w, `"done":5`)
	}
	r.counts(`jobprogress_bus_reconnects_total{session="read"} 0`)
}

func TestGateOff(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job", Gate: "off"}); err != nil {
		t.Fatal(err)
	}
	r := start(t, url, time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	r.insert()
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 5}'`)
	r.counts(`jobprogress_notifications_total{of="malformed"} 0`)
	for end := time.Now().Add(deadline); r.has(`jobprogress_notifications_total{of="unwatched"} 0`) || r.has(`jobprogress_notifications_total{of="unwatched"} 1`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what nobody watches is not notified")
		}
	}
}
