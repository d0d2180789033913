package bus_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"jobprogress/internal/bus"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

const ada = "00000000-0000-4000-8000-00000000000a"

// deadline is for what should take milliseconds.
const deadline = 30 * time.Second

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, text string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// all are all buckets.
var all = job.Buckets{}.Complement()

// watchAll has every change notified, as a server whose viewers watch all jobs does.
func watchAll(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	everything := store.Locks{Rows: all, Items: all}
	if held, err := store.TryLocks(t.Context(), conn, everything); err != nil || held != everything {
		t.Fatalf("%d and %d locks held, %v", held.Rows.Len(), held.Items.Len(), err)
	}
}

// running is a bus that runs for as long as the test.
type running struct {
	t        *testing.T
	hub      *hub.Hub
	bus      *bus.Bus
	registry *prometheus.Registry
	admin    *pgx.Conn
	log      lines
}

func start(t *testing.T, url string, backstop time.Duration) *running {
	t.Helper()
	return startWith(t, url, func(c *bus.Config) { c.BackstopInterval = backstop })
}

// lines takes what is written a line at a time, and forgets what nobody reads.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

func startWith(t *testing.T, url string, change func(*bus.Config)) *running {
	t.Helper()
	rows, err := store.Open(url, 2)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, registry: prometheus.NewRegistry(), admin: connect(t, url), log: make(lines, 100)}
	r.hub = hub.New(r.registry)
	config := bus.Config{
		ListenURL:        url,
		Store:            rows,
		Hub:              r.hub,
		BackstopInterval: time.Hour,
		Log:              slog.New(slog.NewTextHandler(r.log, nil)),
		Registry:         r.registry,
	}
	change(&config)
	b := bus.New(config)
	r.bus = b
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		rows.Close()
	})
	return r
}

// live waits until the bus is as wanted.
func (r *running) live(want bool) {
	r.t.Helper()
	timeout := time.After(deadline)
	for {
		live, changed := r.hub.Live()
		if live == want {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("the bus is not live: %v in time", want)
		}
	}
}

func (r *running) insert() job.ID {
	r.t.Helper()
	id := uuid.NewString()
	exec(r.t, r.admin, `insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 9}')`, id, ada)
	return job.ID(id)
}

func (r *running) watch(id job.ID) *hub.Watcher {
	r.t.Helper()
	w, err := r.hub.Watch(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(w.Close)
	return w
}

// sees waits until the viewer is told something that contains want.
func (r *running) sees(w *hub.Watcher, want string) {
	r.t.Helper()
	if !tells(w, want, deadline) {
		r.t.Fatalf("the viewer is not told %s in time", want)
	}
}

// counts waits until a counter has the value.
func (r *running) counts(text string) {
	r.t.Helper()
	name := text[:strings.IndexAny(text, "{ ")]
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		all, err := testutil.GatherAndFormat(r.registry, expfmt.TypeTextPlain, name)
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.Contains(string(all), text+"\n") {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("no %s in\n%s", text, all)
		}
	}
}

func TestWhatCommitsIsTold(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'in_progress', 'Artist – Title')`, id)
	r.sees(w, `"itemId":"s1"`)
	exec(t, r.admin, `update job set status = 'completed'`)
	r.sees(w, `"completed"`)
}

func TestDeletedRowIsTold(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	exec(t, r.admin, `delete from job`)
	r.sees(w, "job no longer exists")
}

func TestProgressTooLargeForANoticeIsRead(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', 8, 'failed', repeat('x', 10000))`)
	r.sees(w, `"done":8`)
}

func TestNoticesOfAnybodyAreCountedAndIgnored(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	exec(t, r.admin, `notify jobprogress, 'garbage'`)
	exec(t, r.admin, `notify jobprogress`)
	exec(t, r.admin, `select pg_notify('jobprogress', repeat('x', 7999))`)
	exec(t, r.admin, `select pg_notify('jobprogress', '{"kind":"row","job":"`+uuid.NewString()+`"}')`)
	exec(t, r.admin, `select pg_notify('jobprogress', '{"kind":"probe","probe":"forged"}')`)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	r.counts(`jobprogress_notices_ignored_total{reason="malformed"} 3`)
	r.counts(`jobprogress_notices_ignored_total{reason="unwatched"} 1`)
	r.live(true)
}

func TestListenerTerminated(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	for done := range 5 {
		exec(t, r.admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'jobprogress listen'`)
		// Notified to nobody, or to a listener that has not read the row yet.
		exec(t, r.admin, `update job set progress = jsonb_build_object('total', 9, 'done', $1::int)`, done+1)
		r.sees(w, `"done":`+string(rune('1'+done)))
		r.counts(fmt.Sprint("jobprogress_bus_reconnects_total ", done+1))
		r.live(true)
	}
}

// Transactions that update a job three times commit only even states. Big notices of other jobs split what is sent.
func TestViewerSeesNoStateThatIsOvertakenInItsTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	other := connect(t, url)
	noise := r.insert()
	writing := make(chan error, 1)
	go func() {
		var err error
		for i := 1; i <= 1500 && err == nil; i++ {
			_, err = other.Exec(t.Context(), fmt.Sprintf(`
				begin;
				update job set error = repeat('%[3]d', 950) where id = '%[2]s';
				update job set progress = '{"total": 100000, "done": %[1]d1}' where id = '%[4]s';
				update job set error = repeat('%[3]d ', 475) where id = '%[2]s';
				update job set progress = '{"total": 100000, "done": %[1]d3}' where id = '%[4]s';
				update job set progress = '{"total": 100000, "done": %[1]d2}' where id = '%[4]s';
				commit`, i, noise, i%10, id))
		}
		if err == nil {
			_, err = other.Exec(t.Context(), `update job set status = 'completed' where id = $1`, id)
		}
		writing <- err
	}()
	seen := 0
	for b := w.Changes(hub.Cursor{}); b.End == hub.Open; b = w.Changes(b.Cursor) {
		for _, f := range b.Frames {
			var done int
			if n, _ := fmt.Sscanf(string(f.Data), `data: {"type":"progress","done":%d`, &done); n == 1 {
				seen++
				if done%2 != 0 {
					t.Errorf("the viewer saw %d, which was never committed", done)
				}
			}
		}
		select {
		case <-b.Changed:
		case err := <-writing:
			if err != nil {
				t.Fatal(err)
			}
			writing = nil // all is written, and not yet all seen
		case <-time.After(deadline):
			t.Fatal("the viewer is told nothing more")
		}
	}
	if writing != nil {
		if err := <-writing; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d of 1500 states seen", seen)
}

func TestViewerSeesNoStateOfARowThatItsTransactionDeletes(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	exec(t, r.admin, `begin; update job set status = 'failed', error = 'uncommitted'; delete from job; commit`)
	r.sees(w, "job no longer exists")
	for _, f := range w.Changes(hub.Cursor{}).Frames {
		if strings.Contains(string(f.Data), "uncommitted") || strings.Contains(string(f.Data), "failed") && strings.Contains(string(f.Data), "status") {
			t.Errorf("the viewer is told %s", f.Data)
		}
	}
}

// The session lives, but the answer that tells a transaction's end does not come.
func TestAnswerThatFailsIsFollowedByANewListen(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	other := connect(t, r.admin.Config().ConnString())
	stop := make(chan struct{})
	cancelling := make(chan struct{})
	go func() {
		defer close(cancelling)
		for {
			select {
			case <-stop:
				return
			default:
				other.Exec(t.Context(), `select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'jobprogress listen'`)
			}
		}
	}()
	for i := range 200 {
		exec(t, r.admin, `update job set progress = jsonb_build_object('total', 1000, 'done', $1::int)`, i)
	}
	close(stop)
	<-cancelling
	exec(t, r.admin, `update job set progress = '{"total": 1000, "done": 777}'`)
	r.sees(w, `"done":777`)
	r.live(true)
}

// Each server hears the probes of all, and must not take them for its own.
func TestTwoServersProbeAndBothStayLive(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	one, two := start(t, url, time.Hour), start(t, url, time.Hour)
	one.live(true)
	two.live(true)
	for range 500 {
		exec(t, one.admin, `notify jobprogress, '{"kind":"probe","probe":"another server''s"}'`)
	}
	time.Sleep(2 * 5 * time.Second) // two rounds of probes
	one.counts("jobprogress_bus_reconnects_total 0")
	two.counts("jobprogress_bus_reconnects_total 0")
}

func TestAllNoticesLost(t *testing.T) {
	t.Parallel()
	r := start(t, pgtest.New(t), 200*time.Millisecond)
	r.live(true)
	w := r.watch(r.insert())
	exec(t, r.admin, `alter table job disable trigger user`)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
	exec(t, r.admin, `truncate job`)
	r.sees(w, "job no longer exists")
}

func TestNotInstalled(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	r := start(t, url, time.Hour)
	id := r.insert()
	_, err := r.hub.Watch(t.Context(), id)
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
