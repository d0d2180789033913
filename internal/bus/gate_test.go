package bus_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	neturl "net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/bus"
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
	exec(r.t, r.admin, `insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 9}')`, id.String(), ada)
	return job.ID(id.String())
}

// A transaction straddles what becomes of its bucket: it updates the job twice and commits, while the bucket becomes
// watched, busy, armed, busy and armed again, in every order of the two.
func TestTransactionsThatStraddleTheGate(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	orders := merges([]string{"first", "second", "commit"}, []string{"watch", "busy", "arm", "busy", "arm"})
	if len(orders) != 56 {
		t.Fatalf("%d orders", len(orders))
	}
	var done sync.WaitGroup
	limit := make(chan struct{}, 8)
	for i, order := range orders {
		id, writer := r.in(byte(i)), connect(t, url)
		done.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			r.straddle(id, writer, order)
		})
	}
	done.Wait()
	r.counts("jobprogress_bus_reconnects_total 0") // else what was missed was read for that
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
	run := func(text string) {
		if _, err := writer.Exec(r.t.Context(), text); err != nil {
			r.t.Error(err)
		}
	}
	update := func(done int) {
		run(fmt.Sprintf(`update job set progress = '{"total": 9, "done": %d}' where id = '%s'`, done, id))
	}
	run(`begin`)
	var watcher *hub.Watcher
	for _, step := range order {
		switch step {
		case "first":
			update(1)
		case "second":
			update(2)
		case "commit":
			run(`commit`)
		case "watch":
			var err error
			if watcher, err = r.hub.Watch(r.t.Context(), id); err != nil {
				r.t.Error(err)
				return
			}
			defer watcher.Close()
		case "busy":
			r.bus.Busy(r.t.Context(), id.Bucket())
		case "arm":
			r.bus.Calm(r.t.Context(), id.Bucket())
		}
	}
	var cursor hub.Cursor
	timeout := time.After(deadline)
	for {
		b := watcher.Changes(cursor)
		cursor = b.Cursor
		for _, f := range b.Frames {
			switch {
			case strings.Contains(string(f.Data), `"done":1`):
				r.t.Errorf("%v: the viewer sees what was never committed", order)
				return
			case strings.Contains(string(f.Data), `"done":2`):
				return
			}
		}
		select {
		case <-b.Changed:
		case <-timeout:
			r.t.Errorf("%v: the viewer does not see the last state", order)
			return
		}
	}
}

func TestLongTransactionNeitherBlocksNorIsBlocked(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	worker := connect(t, url)
	id := r.insert()
	exec(t, worker, `begin`)
	exec(t, worker, `update job set progress = '{"total": 9, "done": 1}' where id = $1`, id)
	exec(t, worker, `select jobprogress.item($1, 's1', 'song', 'queued')`, id) // nobody watches yet
	w := r.watch(id)                                                           // waits for nobody
	r.sees(w, `"total":9`)
	exec(t, worker, `set local lock_timeout = 1`) // nor does the worker
	exec(t, worker, `update job set progress = '{"total": 9, "done": 2}' where id = $1`, id)
	exec(t, worker, `select jobprogress.item($1, 's2', 'song', 'queued')`, id)
	other := r.insert()
	r.sees(r.watch(other), `"total":9`)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 7}' where id = $1`, other)
	exec(t, worker, `commit`)
	r.sees(w, `"done":2`)
	r.sees(w, `"s2"`)
}

func TestLocksAreTakenForWhatIsWatchedAndGivenBack(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	held := func() (n int) {
		t.Helper()
		err := r.admin.QueryRow(t.Context(), `select count(*) from pg_locks where locktype = 'advisory' and granted
			and classid in ($1, $2) and database = (select oid from pg_database where datname = current_database())`,
			store.RowLocks, store.ItemLocks).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	w := r.watch(r.in(1))
	r.watch(r.in(1))
	r.watch(r.in(2))
	r.counts(`jobprogress_buckets{mode="armed"} 2`)
	if n := held(); n != 4 {
		t.Errorf("%d locks for two buckets", n)
	}
	gone := r.watch(r.in(3))
	exec(t, r.admin, `delete from job where get_byte(uuid_send(id), 15) = 3`)
	r.sees(gone, "no longer exists")
	gone.Close()
	if _, err := r.hub.Watch(t.Context(), job.ID(uuid.NewString())); !errors.Is(err, hub.ErrNotFound) {
		t.Errorf("a job that is not there: %v", err)
	}
	r.counts(`jobprogress_buckets{mode="armed"} 2`)
	for end := time.Now().Add(deadline); held() != 4; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d locks when two buckets are watched", held())
		}
	}
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
}

// flood changes a job 3,000 times as fast as can be.
func (r *running) flood(id job.ID, from int) {
	r.t.Helper()
	exec(r.t, r.admin, fmt.Sprintf(`do $$ begin
		for i in 1..3000 loop
			update job set progress = jsonb_build_object('total', 10000, 'done', %d + i) where id = '%s';
			if i %% 500 = 0 then -- more than a burst at once, on whatever machine
				commit;
			end if;
		end loop;
	end $$`, from, id))
}

// Too much for the budget is read on the cycle, what is slow beside it is told, and afterwards all is told again.
func TestFastWorkIsReadOnTheCycle(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	fast, slow := r.in(1), r.in(2)
	fastViewer, slowViewer := r.watch(fast), r.watch(slow)
	r.counts(`jobprogress_buckets{mode="armed"} 2`)
	for round := range 2 {
		r.flood(fast, round*3000)
		r.sees(fastViewer, fmt.Sprint(`"done":`, (round+1)*3000))
		r.counts(fmt.Sprintf(`jobprogress_bucket_switches_total{to="busy"} %d`, round+1))
		exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $2::int) where id = $1`, slow, round+1)
		r.sees(slowViewer, fmt.Sprint(`"done":`, round+1))
		exec(t, r.admin, `select jobprogress.item($1, $2, 'song', 'queued')`, fast, fmt.Sprint("s", round))
		r.sees(fastViewer, fmt.Sprintf(`"s%d"`, round))
		r.counts(`jobprogress_buckets{mode="busy"} 0`)
		r.counts(`jobprogress_buckets{mode="armed"} 2`)
	}
	exec(t, r.admin, `update job set status = 'completed'`)
	r.sees(fastViewer, `"completed"`)
	r.sees(slowViewer, `"completed"`)
}

// Whoever may connect may take any advisory lock. That keeps us from ours, not viewers from what they came for.
func TestLockThatSomebodyElseHolds(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	stranger := connect(t, url)
	exec(t, stranger, `select pg_advisory_lock($1, 1), pg_advisory_lock($2, 1)`, store.RowLocks, store.ItemLocks)
	w := r.watch(r.in(1))
	for done := range 3 {
		exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $1::int)`, done+1)
		r.sees(w, fmt.Sprint(`"done":`, done+1))
		exec(t, stranger, `update job set progress = jsonb_build_object('total', 9, 'done', $1::int)`, done+4) // who holds it is told that nobody watches
		r.sees(w, fmt.Sprint(`"done":`, done+4))
	}
	r.counts(`jobprogress_buckets{mode="busy"} 1`)
	exec(t, stranger, `select pg_advisory_unlock_all()`)
	r.counts(`jobprogress_buckets{mode="armed"} 1`)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 8}'`)
	r.sees(w, `"done":8`)
}

// The database's table of locks is full, so it refuses ours.
func TestNoRoomForLocks(t *testing.T) {
	t.Parallel()
	_, url := pgtest.Own(t, "max_locks_per_transaction=10", "max_connections=20")
	r := start(t, url, time.Hour)
	r.live(true)
	hog := connect(t, url)
	const room = 30
	_, err := hog.Exec(t.Context(), `select pg_advisory_lock(1, i) from generate_series(1, 1000000) as i`)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "53200" {
		t.Fatalf("the table is not full: %v", err)
	}
	exec(t, hog, `select pg_advisory_unlock(1, i) from generate_series(1, $1) as i`, room)
	var watchers []*hub.Watcher
	for b := range byte(room) { // each bucket has two
		watchers = append(watchers, r.watch(r.in(b)))
	}
	r.counts(fmt.Sprintf(`jobprogress_buckets{mode="busy"} %d`, room))
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`) // for which there is room again
	for _, w := range watchers {
		r.sees(w, `"done":4`)
	}
	exec(t, hog, `select pg_advisory_unlock_all()`)
	r.counts(fmt.Sprintf(`jobprogress_buckets{mode="armed"} %d`, room))
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 5}'`)
	for _, w := range watchers {
		r.sees(w, `"done":5`)
	}
	r.counts(`jobprogress_bus_reconnects_total 0`)
}

// The role that listens may take locks, not give them back.
func TestUnlockThatIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := connect(t, url)
	role := "listener_" + strings.ToLower(rand.Text()[:8])
	exec(t, admin, fmt.Sprintf(`create role %s login password 'listener'`, role))
	t.Cleanup(func() { admin.Exec(context.Background(), `drop role `+role) })
	exec(t, admin, `revoke execute on function pg_advisory_unlock_shared(int, int), pg_advisory_unlock_all() from public`)
	r := startWith(t, url, func(c *bus.Config) {
		parsed, err := neturl.Parse(c.ListenURL)
		if err != nil {
			t.Fatal(err)
		}
		parsed.User = neturl.UserPassword(role, "listener")
		c.ListenURL = parsed.String()
	})
	r.live(true)
	id := r.in(1)
	w := r.watch(id)
	r.flood(id, 0)
	r.sees(w, `"done":3000`)
	r.counts(`jobprogress_bus_reconnects_total 1`) // which gives back all locks
	r.live(true)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 5}'`)
	r.sees(w, `"done":5`)
	r.counts(`jobprogress_buckets{mode="busy"} 1`)
	exec(t, admin, `grant execute on function pg_advisory_unlock_shared(int, int), pg_advisory_unlock_all() to public`)
	r.counts(`jobprogress_buckets{mode="armed"} 1`)
	r.counts(`jobprogress_bus_reconnects_total 1`)
}

// The viewers of what was loud have gone, and nothing else changes.
func TestBudgetIsWholeAgainAfterTheLoudHaveGone(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	id := r.in(1)
	w := r.watch(id)
	r.flood(id, 0)
	r.counts(`jobprogress_bucket_switches_total{to="busy"} 1`)
	w.Close()
	r.counts(`jobprogress_buckets{mode="busy"} 0`)
	for end := time.Now().Add(deadline); r.bus.Strained(t.Context()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody watches, and there is little budget still")
		}
	}
}

// The pool reaches the database, and LISTEN does not come back.
func TestWithoutASessionRowsAreReadOnTheCycle(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	link, err := pgtest.NewLink(pgtest.Host(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	r := startWith(t, url, func(c *bus.Config) { c.ListenURL = link.Through(url) })
	r.live(true)
	w := r.watch(r.insert())
	link.Cut()
	r.live(false)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	if err := link.Mend(); err != nil {
		t.Fatal(err)
	}
	r.live(true)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 5}'`)
	r.sees(w, `"done":5`)
	r.counts(`jobprogress_buckets{mode="armed"} 1`)
}

// An installation of before the gate, or with the gate off, notifies everything.
func TestGateOff(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	if err := store.Install(t.Context(), url, store.Installation{Table: "job", Ungated: true}); err != nil {
		t.Fatal(err)
	}
	r := start(t, url, time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	r.insert()
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 5}'`)
	r.counts(`jobprogress_notices_ignored_total{reason="unwatched"} 1`)
}

// Items are in no row: whoever has been shown a job is told of all its items from then on, whoever else comes at the
// same moment.
func TestItemsAreToldFromTheFirstFrameOn(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	const together = 4
	var workers [together]*pgx.Conn
	for i := range workers {
		workers[i] = connect(t, url)
	}
	for first := 0; first < 256 && !t.Failed(); first += together {
		var come sync.WaitGroup
		for i, worker := range workers {
			id := r.in(byte(first + i))
			come.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Microsecond) // one comes while another's locks are taken
				w, err := r.hub.Watch(t.Context(), id)
				if err != nil {
					t.Error(err)
					return
				}
				defer w.Close()
				if _, err := worker.Exec(t.Context(), `select jobprogress.item($1, 's1', 'song', 'queued')`, id); err != nil {
					t.Error(err)
				} else if !tells(w, `"s1"`, deadline) {
					t.Errorf("an item of a job in bucket %d is not told", first+i)
				}
			})
		}
		come.Wait()
	}
}

// tells waits until the viewer is told something that contains want, and whether it was.
func tells(w *hub.Watcher, want string, within time.Duration) bool {
	timeout := time.After(within)
	for {
		b := w.Changes(hub.Cursor{})
		for _, f := range b.Frames {
			if strings.Contains(string(f.Data), want) {
				return true
			}
		}
		select {
		case <-b.Changed:
		case <-timeout:
			return false
		}
	}
}
