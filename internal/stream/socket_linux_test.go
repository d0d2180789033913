package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// deadline is for what should take milliseconds.
const deadline = 30 * time.Second

// server serves streams of someJob over real sockets.
type server struct {
	t        *testing.T
	hub      *hub.Hub
	url      string
	released atomic.Int32
	between  func() // is called before each stream is served
}

func serve(t *testing.T, writeTimeout time.Duration) *server {
	t.Helper()
	registry := prometheus.NewRegistry()
	s := &server{t: t, hub: hub.New(registry)}
	s.hub.Feed().SetTable(job.Table{IDType: job.IDUUID, Deleted: job.DeletedGone})
	s.hub.Feed().SetLive()
	set := New(Config{
		Hub: s.hub, PingInterval: time.Minute, RecheckInterval: time.Hour, WriteTimeout: writeTimeout,
		Release: func(string) { s.released.Add(1) }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Registry: registry,
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subscriber, err := s.hub.Subscribe(r.Context(), someJob)
		if err != nil {
			t.Error(err)
			return
		}
		if s.between != nil {
			s.between()
		}
		set.Serve(w, r, Request{Viewer: auth.Viewer{Account: owner}, Jobs: OneJob(subscriber, hub.Cursor{})})
	}))
	s.url = server.URL
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- set.Run(ctx) }()
	first, err := s.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		first.Close()
		server.Close()
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return s
}

// subscribe has the job read, and keeps it.
func (s *server) subscribe() (*hub.Subscriber, error) {
	go func() {
		<-s.hub.Feed().Wanted()
		s.change(job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: 1, Total: 1 << 40}})
	}()
	return s.hub.Subscribe(s.t.Context(), someJob)
}

// change has the job read, with this state.
func (s *server) change(state job.State) {
	feed := s.hub.Feed()
	feed.Want(someJob)
	feed.Begin(10)
	feed.Finish([]job.Snapshot{{ID: someJob, Found: true, State: state}}, "1:1:", job.Buckets{}.Complement())
}

// viewer connects, asks for the stream, and sends what more there is.
func (s *server) viewer(more string) *net.TCPConn {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(deadline))
	tcp := conn.(*net.TCPConn)
	tcp.SetReadBuffer(64 << 10)
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n%s", more); err != nil {
		s.t.Fatal(err)
	}
	return tcp
}

// A viewer that can't keep up is sent the newest state when it can take more, and not all that it missed.
func TestSlowViewerSkipsToTheNewestState(t *testing.T) {
	t.Parallel()
	s := serve(t, 10*time.Second)
	conn := s.viewer("")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	const changes = 3000
	for i := range int64(changes) {
		state := job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: i, Total: changes, Message: strings.Repeat("x", 4000)}}
		if i == changes-1 {
			state.Status = job.Completed
		}
		s.change(state)
		time.Sleep(50 * time.Microsecond)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(text), err)
	}
	frames := strings.Count(string(text), `"type":"progress"`)
	if !strings.Contains(string(text), fmt.Sprintf(`"done":%d,`, changes-1)) || !strings.HasSuffix(string(text), `"status":"completed"}`+"\n\n") {
		t.Errorf("it ends with %q", text[max(0, len(text)-200):])
	}
	if frames > changes*9/10 {
		t.Errorf("it was sent %d of %d changes", frames, changes)
	}
}

// A viewer that takes little, and all the time, is not cut off: the kernel says for long that the socket is full.
func TestSlowViewerIsNotCut(t *testing.T) {
	t.Parallel()
	s := serve(t, 2*time.Second)
	// As over a real network: the window is small, and opens in small steps.
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10))
		})
		return err
	}}
	conn, err := dialer.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	conn.SetDeadline(time.Now().Add(deadline))
	if _, err := conn.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	s.change(job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: 2, Total: 3, Message: strings.Repeat("x", 1<<20)}})
	buffer := make([]byte, 1000)
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if _, err := conn.Read(buffer); err != nil {
			t.Fatal(err)
		}
	}
	if s.released.Load() != 0 {
		t.Error("it was cut off")
	}
}

// A viewer that takes nothing is.
func TestViewerThatTakesNothingIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, time.Second)
	s.viewer("")
	for i := int64(2); s.released.Load() == 0; i++ {
		s.change(job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: i, Total: i, Message: strings.Repeat("x", 1<<20)}})
		time.Sleep(10 * time.Millisecond)
		if i > 3000 {
			t.Fatal("it was not cut off in time")
		}
	}
}

// A client that sends what nobody asked for reads the end of its stream all the same, and its place is free then.
func TestEndIsReadByAClientThatSends(t *testing.T) {
	t.Parallel()
	s := serve(t, 10*time.Second)
	conn := s.viewer(strings.Repeat("GET /more HTTP/1.1\r\n\r\n", 2000))
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("and more")); err != nil {
		t.Fatal(err)
	}
	s.change(job.State{Account: owner, Status: job.Failed, Error: "enough"})
	text, err := io.ReadAll(response.Body)
	if err != nil || !strings.HasSuffix(string(text), `"status":"failed"}`+"\n\n") || !response.Close {
		t.Errorf("%q, %v, close: %v", text, err, response.Close)
	}
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	for end := time.Now().Add(deadline); s.released.Load() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("released %d times", s.released.Load())
		}
	}
}

// Some scanners hold back what comes first until there is more. Each write is a chunk, and each batch whole in one.
func TestFirstBatchAndTheCommentAreWritesOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := serve(t, 10*time.Second)
	reader := bufio.NewReader(s.viewer(""))
	for line := "x"; line != "\r\n"; { // the head
		var err error
		if line, err = reader.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	chunk := func() string {
		t.Helper()
		var size int
		if _, err := fmt.Fscanf(reader, "%x\r\n", &size); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, size+len(lineEnd))
		if _, err := io.ReadFull(reader, text); err != nil || string(text[size:]) != lineEnd {
			t.Fatalf("%q, %v", text, err)
		}
		return string(text[:size])
	}
	if first := chunk(); !strings.HasPrefix(first, "retry: ") || !strings.Contains(first, `"done":1,`) || !strings.HasSuffix(first, `"status":"running"}`+"\n\n") {
		t.Errorf("the first is %q", first)
	}
	if second := chunk(); second != ": ping\n\n" {
		t.Errorf("the second is %q", second)
	}
	s.change(job.State{Account: owner, Status: job.Failed, Error: "odd", Progress: job.Progress{Done: 2, Total: 3}})
	if third := chunk(); strings.Count(third, "data: ") != 3 || !strings.HasSuffix(third, `"status":"failed"}`+"\n\n") {
		t.Errorf("the third is %q", third)
	}
}

// The job is another account's by the time that the stream begins: the answer is a whole one all the same.
func TestStreamThatEndsBeforeItBegins(t *testing.T) {
	t.Parallel()
	s := serve(t, 10*time.Second)
	s.between = func() { s.change(job.State{Account: "another", Status: job.Running}) }
	conn := s.viewer("")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(response.Body); err != nil || len(text) > 0 || response.StatusCode != http.StatusOK {
		t.Errorf("%s %q, %v", response.Status, text, err)
	}
}

// Viewers that come and go while their job changes and ends: each place is given back once.
func TestPlacesAreGivenBackOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, 10*time.Second)
	const viewers = 200
	for i := range viewers {
		conn := s.viewer("")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0:
			conn.Close()
		case 1:
			conn.SetLinger(0) // a reset
			conn.Close()
		case 2:
			conn.CloseWrite()
		}
		s.change(job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: int64(i), Total: viewers}})
	}
	s.change(job.State{Account: owner, Status: job.Completed})
	for end := time.Now().Add(deadline); s.released.Load() != viewers; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d places are given back", s.released.Load(), viewers)
		}
	}
	time.Sleep(2 * lingerTime) // nothing is given back twice
	if n := s.released.Load(); n != viewers {
		t.Errorf("%d of %d places are given back", n, viewers)
	}
}
