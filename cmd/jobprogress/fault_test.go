package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/pgtest"
)

func rawConnection(t *testing.T, s *server) (net.Conn, func(string)) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return conn, func(text string) {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSessionTerminatedWithStreamsOpen(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--backstop-interval", "1h")
	id := s.insert()
	st := s.open(streamOf(id) + "?heartbeat=1")
	for i, session := range []string{"listen", "read", "listen", "read"} {
		s.terminate(session)
		s.progress(id, i+1)
		start := time.Now()
		st.until(doneEvent(i + 1))
		t.Logf("right again after %s", time.Since(start).Round(time.Millisecond))
		s.eventually("reconnected", func() bool {
			return s.metric(`jobprogress_bus_reconnects_total{session="`+session+`"}`) == strconv.Itoa(i/2+1)
		})
		s.ready()
	}
}

// terminate ends the session that listens or the one that reads.
func (s *server) terminate(session string) {
	s.t.Helper()
	s.exec(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1`, "jobprogress "+session)
}

// unreachable ends sessions, and keeps them from coming back until the returned function is called.
func (s *server) unreachable(sessions ...string) (reachable func()) {
	s.t.Helper()
	allow := func(allowed bool) {
		admin, err := pgx.Connect(s.t.Context(), pgtest.WithDatabase(s.db.Config().ConnString(), "postgres"))
		if err != nil {
			s.t.Fatal(err)
		}
		defer admin.Close(s.t.Context())
		_, err = admin.Exec(s.t.Context(), fmt.Sprintf(`alter database %s allow_connections %v`, s.db.Config().ConnConfig.Database, allowed))
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.exec(`select 1`) // a connection to go on with
	allow(false)
	for _, session := range sessions {
		s.terminate(session)
	}
	return func() { allow(true) }
}

// The pooler of DATABASE_URL serves the JSON state, and nobody else.
func TestDeadPoolerDoesNotMatterToStreams(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := serveForTest(t, url, "--database-url", "postgres://nobody@127.0.0.1:1/nowhere", "--listen-database-url", url)
	id := s.insert()
	st := s.open(streamOf(id))
	st.until("running")
	s.progress(id, 1)
	st.until(doneEvent(1))
	if response, _ := s.get("/api/jobs/" + id); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the JSON state is answered %s", response.Status)
	}
}

func TestDatabaseStoppedAndStartedWithStreamsOpen(t *testing.T) {
	t.Parallel()
	if os.Getenv("TEST_DATABASE_URL") != "" {
		t.Skip("the server of TEST_DATABASE_URL is not ours to stop")
	}
	database, url := pgtest.Own(t)
	s := serveForTest(t, url, "--backstop-interval", "1h")
	id := s.insert()
	st := s.open(streamOf(id) + "?heartbeat=1")
	st.until("running")
	for i, immediate := range []bool{false, true} {
		if err := database.Halt(t.Context(), immediate); err != nil {
			t.Fatal(err)
		}
		st.until("degraded")
		s.degraded()

		// A browser must not give up; everybody else is sent the truth.
		response, body := s.get(streamOf(id), "Accept: text/event-stream")
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(body, "retry: ") || !strings.Contains(body, ": database_unavailable\n") {
			t.Errorf("EventSource is sent %s %q", response.Status, body)
		}
		for _, request := range [][]string{
			{streamOf(id)}, {"/api/jobs/" + id}, {"/api/jobs/" + id, "Accept: text/event-stream"}, // no stream
		} {
			path := request[0]
			response, body := s.get(path, request[1:]...)
			after, err := strconv.Atoi(response.Header.Get("Retry-After"))
			if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "database_unavailable") || err != nil || after < 1 {
				t.Errorf("%s: %s %s, Retry-After %q", path, response.Status, body, response.Header.Get("Retry-After"))
			}
		}

		if err := database.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s.db.Reset()
		s.progress(id, i+1) // read if it was too early to be received
		st.until(doneEvent(i + 1))
		t.Logf("right again %s after the database", time.Since(start).Round(time.Millisecond))
		s.ready()
	}
	select {
	case <-st.ended:
		t.Error("the stream ended")
	default:
	}
}

func TestDatabaseAwayAtTheStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	line := make(chan string, 100)
	stopped := make(chan error, 1)
	go func() {
		stopped <- run(ctx, []string{"serve", "--database-url", "postgres://nobody@127.0.0.1:1/none", "--addr", "127.0.0.1:0",
			"--admin-addr", "127.0.0.1:0", "--jwt-secret", secret}, noEnv, nil, lines(line))
	}()
	for waiting := true; waiting; {
		select {
		case l := <-line:
			waiting = !strings.Contains(l, "bus not live")
		case err := <-stopped:
			t.Fatalf("serve gives up: %v", err)
		}
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// lines takes what is written a line at a time.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// After SIGTERM, quiet or not, a server says that it leaves and goes on answering: a load balancer needs time to see it.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--drain-timeout", "3s", "--lame-duck", "2s")
	id := s.insert()
	before := time.Now()
	s.sigterm()
	s.eventually("unready", func() bool {
		response, _ := s.get("/readyz")
		return response.StatusCode == http.StatusServiceUnavailable
	})
	st := s.open(streamOf(id))
	st.until("running")
	s.progress(id, 7)
	st.until(doneEvent(7))
	if open := time.Since(before); open < 2*time.Second {
		time.Sleep(1900*time.Millisecond - open)
		if response, _ := s.get("/api/jobs/" + id); response.StatusCode != http.StatusOK {
			t.Errorf("at the end of the lame duck time: %s", response.Status)
		}
	}
	if last := st.until("retry: "); !regexp.MustCompile(`^retry: [1-4]\d\d$`).MatchString(last) {
		t.Errorf("before the end comes %q", last)
	}
	st.ends()
	s.stops()
}

func TestDrain(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		var streams []*stream
		for range 20 {
			st := s.open(streamOf(id))
			st.until("running")
			streams = append(streams, st)
		}
		s.stop()
		s.eventually("draining", func() bool {
			response, _ := s.get("/readyz")
			return response.StatusCode == http.StatusServiceUnavailable
		})
		if response, body := s.get(streamOf(id), "Accept: text/event-stream"); response.StatusCode != http.StatusOK || !strings.Contains(body, ": draining\n") {
			t.Errorf("a new EventSource is sent %s %q", response.Status, body)
		}
		if response, body := s.get(streamOf(id)); response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"draining"`) {
			t.Errorf("another client is sent %s %s", response.Status, body)
		}
		// Those that are still open receive what happens.
		s.progress(id, 7)
		told, first, last := 0, time.Time{}, time.Time{}
		for _, st := range streams {
			st.ends()
			for len(st.blocks) > 0 {
				if b := <-st.blocks; strings.Contains(b, doneEvent(7)) {
					told++
				}
			}
			if last = time.Now(); first.IsZero() {
				first = last
			}
		}
		if told == 0 {
			t.Error("the streams were silent while they drained")
		}
		t.Logf("%d of %d streams received a change, the ends spread over %s", told, len(streams), last.Sub(first).Round(time.Millisecond))
		s.stops()
	}, "--drain-timeout", "5s")
}

// stops waits for run to return.
func (s *server) stops() {
	s.t.Helper()
	select {
	case err := <-s.stopped:
		if err != nil {
			s.t.Errorf("serve: %v", err)
		}
	case <-time.After(deadline):
		s.t.Error("serve does not return")
	}
}
