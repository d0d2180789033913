package bus_test

import (
	"context"
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

// running is a bus that runs for as long as the test.
type running struct {
	t        *testing.T
	hub      *hub.Hub
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
	r := &running{t: t, registry: prometheus.NewRegistry(), admin: pgtest.Connect(t, url), log: make(lines, 100)}
	r.hub = hub.New(r.registry)
	config := bus.Config{
		URL:              func() string { return url },
		Hub:              r.hub,
		BackstopInterval: time.Hour,
		Log:              slog.New(slog.NewTextHandler(r.log, nil)),
		Registry:         r.registry,
	}
	change(&config)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		bus.New(config).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

// live waits until the bus is as wanted.
func (r *running) live(want bool) {
	r.t.Helper()
	timeout := time.After(deadline)
	for {
		status, changed := r.hub.Status()
		if status.Live == want {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("the bus is not live: %v in time, but %+v", want, status)
		}
	}
}

func (r *running) insert() job.ID {
	r.t.Helper()
	id := uuid.NewString()
	pgtest.Exec(r.t, r.admin, `insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 9}')`, id, ada)
	return job.ID(id)
}

func (r *running) watch(id job.ID) *hub.Subscriber {
	r.t.Helper()
	w, err := r.hub.Subscribe(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(w.Close)
	return w
}

// sees waits until the viewer is sent something that contains want.
func (r *running) sees(w *hub.Subscriber, want string) {
	r.t.Helper()
	if !sent(w, want) {
		r.t.Fatalf("the viewer is not sent %s in time", want)
	}
}

// counts waits until a counter has the value.
func (r *running) counts(text string) {
	r.t.Helper()
	for end := time.Now().Add(deadline); !r.has(text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			all, _ := testutil.GatherAndFormat(r.registry, expfmt.TypeTextPlain, text[:strings.IndexAny(text, "{ ")])
			r.t.Fatalf("no %s in\n%s", text, all)
		}
	}
}

// sent waits until the viewer is sent something that contains want, and reports whether it was.
func sent(w *hub.Subscriber, want string) bool {
	timeout := time.After(deadline)
	for {
		changed := w.Changed()
		for _, f := range w.Changes(hub.Cursor{}).Frames {
			if strings.Contains(string(f.Data), want) {
				return true
			}
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// terminate ends the sessions of a name.
func (r *running) terminate(name string) {
	r.t.Helper()
	pgtest.Exec(r.t, r.admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1`, name)
}

// has reports whether a counter has the value.
func (r *running) has(text string) bool {
	r.t.Helper()
	all, err := testutil.GatherAndFormat(r.registry, expfmt.TypeTextPlain, text[:strings.IndexAny(text, "{ ")])
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Contains(string(all), text+"\n")
}

// locks is how many advisory locks of ours with keys below one are held in the database. The buckets' are below 256.
func (r *running) locks(below int) (n int) {
	r.t.Helper()
	err := r.admin.QueryRow(r.t.Context(), `select count(*) from pg_locks where locktype = 'advisory' and granted
		and classid::int = $1 and objid::int < $2 and database = (select oid from pg_database where datname = current_database())`, store.LockClass, below).Scan(&n)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}
