package bus_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"jobprogress/internal/bus"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/pgtest/network"
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

// Behind a transaction pooler, what we set or lock would be somebody else's.
func TestTransactionPoolerIsNamedAndLeftAsItWas(t *testing.T) {
	t.Parallel()
	direct := pgtest.New(t)
	pooled := network.Pooler(t, direct, "transaction", "default_pool_size = 2")
	r := startWith(t, pooled, func(*bus.Config) {})
	r.says("LISTEN_DATABASE_URL", "pooler")
	if status, _ := r.hub.Status(); status.Live {
		t.Error("the bus believes that it receives")
	}
	admin := pgtest.Connect(t, direct)
	r.admin.Close(t.Context())
	r.admin = admin
	if n := r.locks(1000); n != 0 {
		t.Errorf("%d locks are held in somebody's session", n)
	}
	config, err := pgx.ParseConfig(pooled)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for range 10 {
		var timeout string
		if err := conn.QueryRow(t.Context(), `show statement_timeout`).Scan(&timeout); err != nil || timeout != "0" {
			t.Errorf("statement_timeout is %q in somebody's session, %v", timeout, err)
		}
	}
}

func TestSessionPoolerWorks(t *testing.T) {
	t.Parallel()
	pooled := network.Pooler(t, pgtest.New(t), "session", "")
	r := start(t, pooled, time.Hour)
	r.live(true)
	id := r.insert()
	w := r.watch(id)
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	pgtest.Exec(t, r.admin, `select jobprogress.item($1, 's1', 'song', 'queued')`, id)
	r.sees(w, `"done":4`)
	r.sees(w, `"s1"`)
}

// One name leads to two servers, and each session to another one.
func TestSessionsOnDifferentServers(t *testing.T) {
	t.Parallel()
	one := pgtest.New(t)
	_, two := pgtest.Own(t)
	var both atomic.Bool
	both.Store(true)
	u, err := url.Parse(one)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	admin := pgtest.Connect(t, two)
	pgtest.Exec(t, admin, `create database `+strings.TrimPrefix(u.Path, "/"))
	pgtest.Exec(t, admin, `alter role postgres password '`+password+`'`)
	u.Host = balance(t, func(n int) string {
		if both.Load() && n%2 == 1 {
			return network.Host(two)
		}
		return network.Host(one)
	})

	r := startWith(t, one, func(c *bus.Config) { c.URL = u.String })
	r.says("did not come back")
	both.Store(false)
	r.live(true)
	w := r.watch(r.insert())
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.sees(w, `"done":4`)
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
	pgtest.Exec(t, r.admin, `copy (select) to '`+data+`/standby.signal'`)
	if err := server.Halt(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.says("standby", "name the primary in DATABASE_URL and LISTEN_DATABASE_URL")
	r.live(false)

	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `select pg_promote()`)
	pgtest.Exec(t, admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.live(true)
	r.sees(w, `"done":4`)
}

func TestReadOnlyPrimaryIsNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	r := start(t, url, time.Hour)
	r.live(true)
	readOnly := func(value string) {
		pgtest.Exec(t, r.admin, `set default_transaction_read_only = off`)
		pgtest.Exec(t, r.admin, `do $$ begin execute format('alter database %I set default_transaction_read_only = `+value+`', current_database()); end $$`)
		pgtest.Exec(t, r.admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
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
	link, err := network.NewLink(network.Host(direct))
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

	r := startWith(t, direct, func(c *bus.Config) {
		c.URL = func() string { return pgtest.With(both.String(), "connect_timeout", "1") }
	})
	r.live(true)
	w := r.watch(r.insert())
	if err := link.Blackhole(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	r.live(false) // the probe does not come back, or can't be sent
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
	pgtest.Exec(t, r.admin, `notify jobprogress, 'garbage'`) // is logged by the handler
	<-stuck
	r.live(false)
	pgtest.Exec(t, r.admin, `update job set progress = '{"total": 9, "done": 4}'`)
	close(release)
	r.live(true)
	r.sees(w, `"done":4`)
}

// stuckLog does not return from the line about an ignored notification until it is released.
type stuckLog struct {
	slog.Handler
	stuck, release chan struct{}
}

func (l stuckLog) Handle(ctx context.Context, record slog.Record) error {
	if record.Message == "malformed notification ignored" {
		close(l.stuck)
		<-l.release
	}
	return l.Handler.Handle(ctx, record)
}

func TestSessionsAreGivenUpWhenTheirPeerIsGone(t *testing.T) {
	t.Parallel()
	conn, err := store.Connect(t.Context(), pgtest.New(t), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := store.Prepare(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3", "tcp_user_timeout": "20000", "idle_session_timeout": "0",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), `select setting from pg_settings where name = $1`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
}

// A listener that does not read holds the queue of the whole server back, and a full queue fails the writers.
func TestListenerThatDoesNotReadIsGivenUpByTheServer(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	sooner := pgtest.With(url, "tcp_user_timeout", "1000")
	listener, err := store.Connect(t.Context(), sooner, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.PgConn().Conn().Close()
	pgtest.Exec(t, listener, `listen jobprogress`)
	admin := pgtest.Connect(t, url)
	for end := time.Now().Add(deadline); ; {
		pgtest.Exec(t, admin, `select pg_notify('jobprogress', i || repeat('x', 7000)) from generate_series(1, 2000) as i`)
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
	holder := pgtest.Connect(t, url)
	pgtest.Exec(t, holder, `listen jobprogress`)
	pgtest.Exec(t, holder, `begin`)
	pgtest.Exec(t, r.admin, `select pg_notify('jobprogress', i || repeat('x', 7000)) from generate_series(1, 2000) as i`)
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

// balance is the address of a load balancer that leads connection n where to says, for as long as the test.
func balance(t *testing.T, to func(n int) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var copying sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		copying.Wait()
	})
	copying.Go(func() {
		for n := 0; ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to(n))
			if err != nil {
				client.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				copying.Go(func() {
					io.Copy(way[0], way[1])
					client.Close()
					server.Close()
				})
			}
		}
	})
	return l.Addr().String()
}
