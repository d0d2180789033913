package bus_test

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"jobprogress/internal/bus"
	"jobprogress/internal/hub"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// says waits until the log has a line that contains all the texts.
func (r *running) says(texts ...string) {
	r.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case line := <-r.log:
			found := true
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return
			}
		case <-timeout:
			r.t.Fatalf("the log does not say %q in time", texts)
		}
	}
}

func TestTransactionPoolerIsNamedAtTheStart(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"that refuses settings": "",
		"that ignores settings": "ignore_startup_parameters = tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout, idle_session_timeout",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := pgtest.New(t)
			pooled := pgtest.Pooler(t, direct, settings)
			r := startWith(t, pooled, func(c *bus.Config) {})
			r.says("LISTEN_DATABASE_URL", "pooler")
			if live, _ := r.hub.Live(); live {
				t.Error("the bus believes that it hears")
			}
			// What to do about it, as the message says.
			mended := startWith(t, pooled, func(c *bus.Config) { c.ListenURL = direct })
			mended.live(true)
			w := mended.watch(mended.insert())
			exec(t, mended.admin, `update job set progress = '{"total": 9, "done": 4}'`)
			mended.sees(w, `"done":4`)
		})
	}
}

func TestDemotedPrimaryIsNamedAndLeft(t *testing.T) {
	t.Parallel()
	server, url := pgtest.Own(t)
	r := start(t, url, time.Hour)
	r.live(true)
	w := r.watch(r.insert())
	var data string
	if err := r.admin.QueryRow(t.Context(), `show data_directory`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	exec(t, r.admin, `copy (select) to '`+data+`/standby.signal'`)
	if err := server.Halt(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.says("standby", "name the primary in DATABASE_URL and LISTEN_DATABASE_URL")
	r.live(false)

	admin := connect(t, url)
	exec(t, admin, `select pg_promote()`)
	exec(t, admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.live(true)
	r.sees(w, `"done":4`)
}

func TestReadOnlyPrimaryIsNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	readOnly := func(value string) {
		exec(t, r.admin, `set default_transaction_read_only = off`)
		exec(t, r.admin, `do $$ begin execute format('alter database %I set default_transaction_read_only = `+value+`', current_database()); end $$`)
		exec(t, r.admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
	}
	readOnly("on")
	r.says("read-only", "default_transaction_read_only")
	readOnly("off")
	r.live(true)
}

// The connection is open, and everything sent over it vanishes, as behind a firewall that has forgotten it.
func TestHalfOpenConnectionIsFoundAndReplaced(t *testing.T) {
	t.Parallel()
	direct := pgtest.New(t)
	link, err := pgtest.NewLink(pgtest.Host(direct))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	// When the first way is closed, the second one is taken.
	both, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	both.Host = link.Addr + "," + both.Host

	r := startWith(t, direct, func(c *bus.Config) { c.ListenURL = pgtest.With(both.String(), "connect_timeout", "1") })
	r.live(true)
	w := r.watch(r.insert())
	if err := link.Blackhole(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.says("did not come back")
	found := time.Since(start)
	r.sees(w, `"done":4`)
	r.live(true)
	t.Logf("found after %s, mended after %s", found.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

func TestStuckHandlerIsFound(t *testing.T) {
	t.Parallel()
	stuck, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-release:
		default:
			close(release)
		}
	}))
	r := startWith(t, pgtest.New(t), func(c *bus.Config) {
		c.Log = slog.New(stuckLog{c.Log.Handler(), stuck, release})
	})
	r.live(true)
	w := r.watch(r.insert())
	exec(t, r.admin, `notify jobprogress, 'garbage'`) // is logged by the handler
	<-stuck
	r.live(false)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	close(release)
	r.live(true)
	r.sees(w, `"done":4`)
}

// stuckLog does not return from the line about an ignored notice until it is released.
type stuckLog struct {
	slog.Handler
	stuck, release chan struct{}
}

func (l stuckLog) Handle(ctx context.Context, record slog.Record) error {
	if record.Message == "malformed notice ignored" {
		close(l.stuck)
		<-l.release
	}
	return l.Handler.Handle(ctx, record)
}

func TestSessionThatListensIsGivenUpWhenItsPeerIsGone(t *testing.T) {
	t.Parallel()
	conn, err := store.Connect(t.Context(), pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for name, want := range map[string]string{
		"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3", "tcp_user_timeout": "20000", "idle_session_timeout": "0",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), `show `+name).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
}

// A listener that does not read holds the queue of the whole server back, and a full queue fails the writers.
func TestListenerThatDoesNotReadIsGivenUpByTheServer(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	sooner := pgtest.With(url, "tcp_user_timeout", "1000")
	listener, err := store.Connect(t.Context(), sooner)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.PgConn().Conn().Close()
	exec(t, listener, `listen jobprogress`)
	admin := connect(t, url)
	for end := time.Now().Add(deadline); ; {
		exec(t, admin, `select pg_notify('jobprogress', i || repeat('x', 7000)) from generate_series(1, 2000) as i`)
		var there bool
		err := admin.QueryRow(t.Context(), `select exists (select from pg_stat_activity where pid = $1)`, pgx.QueryExecModeExec, listener.PgConn().PID()).Scan(&there)
		if err != nil {
			t.Fatal(err)
		}
		if !there {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server keeps it")
		}
	}
}

// Who listens and stays in a transaction holds the queue, too; the operator sees it fill.
func TestQueueThatFillsIsSeen(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	holder := connect(t, url)
	exec(t, holder, `listen jobprogress`)
	exec(t, holder, `begin`)
	exec(t, r.admin, `select pg_notify('jobprogress', i || repeat('x', 7000)) from generate_series(1, 2000) as i`)
	for end := time.Now().Add(deadline); ; time.Sleep(50 * time.Millisecond) {
		all, err := testutil.GatherAndFormat(r.registry, expfmt.TypeTextPlain, "jobprogress_notification_queue_usage")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(all), " 0\n") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it is not seen:\n%s", all)
		}
	}
}

func TestForgedNoticesAreNotBelieved(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	forger := connect(t, url)
	exec(t, forger, `listen jobprogress`)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 1}'`)
	exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'queued')`, id)
	r.sees(w, `"s1"`)
	r.counts(`jobprogress_notices_ignored_total{reason="unsealed"} 0`) // else these, too, are only hints
	var genuine []string
	for len(genuine) < 2 {
		n, err := forger.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(n.Payload, "probe") {
			genuine = append(genuine, n.Payload)
		}
	}
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 2}'`)
	exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'succeeded')`, id)
	r.sees(w, `"done":2`)
	r.sees(w, `"succeeded"}`)

	seen := w.Changes(hub.Cursor{}).Cursor
	forged := append(genuine, // heard, and sent again
		strings.Replace(genuine[0], `"done":1`, `"done":7`, 1),
		`{"kind":"state","job":"`+string(id)+`","xid":"18446744073709551615","account":"`+ada+`","status":"completed"}`,
		`{"kind":"item","job":"`+string(id)+`","item":{"itemId":"s2","itemKind":"song","status":"failed"}}`,
		`{"seal":"","kind":"item","job":"`+string(id)+`","item":{"itemId":"s3","itemKind":"song","status":"failed"}}`,
	)
	for _, payload := range forged {
		exec(t, forger, `select pg_notify('jobprogress', $1)`, payload)
	}
	r.counts(`jobprogress_notices_ignored_total{reason="unsealed"} 6`)
	exec(t, r.admin, `update job set progress = '{"total": 9, "done": 3}'`)
	r.sees(w, `"done":3`)
	for _, f := range w.Changes(seen).Frames {
		if !strings.Contains(string(f.Data), `"done":3`) {
			t.Errorf("the viewer is told %s", f.Data)
		}
	}
}
