package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"jobprogress/internal/auth"
	"jobprogress/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

const (
	ada    = "00000000-0000-4000-8000-00000000000a"
	ben    = "00000000-0000-4000-8000-00000000000b"
	secret = "a secret of at least thirty-two bytes"
)

// deadline is for what should take milliseconds.
const deadline = 30 * time.Second

// noEnv is an empty environment.
func noEnv(string) string { return "" }

// server is the program as main runs it, for as long as the test.
type server struct {
	t           *testing.T
	url, admin  string
	db          *pgxpool.Pool
	databaseURL string
	client      *http.Client
	stop        func()     // as Ctrl-C does
	sigterm     func()     // as SIGTERM does
	stopped     chan error // what run returned
}

func serveForTest(t *testing.T, databaseURL string, args ...string) *server {
	t.Helper()
	return serveForTestWith(t, databaseURL, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}, args...)
}

func serveForTestWith(t *testing.T, databaseURL string, client *http.Client, args ...string) *server {
	t.Helper()
	return serveForTestIn(t, databaseURL, client, noEnv, append([]string{"--database-url", databaseURL, "--jwt-secret", secret}, args...)...)
}

// serveForTestIn takes the settings of an environment.
func serveForTestIn(t *testing.T, databaseURL string, client *http.Client, getenv func(string) string, args ...string) *server {
	t.Helper()
	ctx, end := context.WithCancelCause(context.Background())
	cancel := func() { end(context.Canceled) }
	log, logEnd := io.Pipe()
	s := &server{t: t, databaseURL: databaseURL, stop: cancel, sigterm: func() { end(errTerminated) }, stopped: make(chan error, 1), db: pgtest.Pool(t, databaseURL), client: client}
	args = append([]string{"serve", "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--log-format", "json"}, args...)
	go func() {
		err := run(ctx, args, getenv, io.Discard, logEnd)
		logEnd.CloseWithError(err)
		s.stopped <- err
	}()
	lines := bufio.NewScanner(log)
	for s.url == "" && lines.Scan() {
		var line struct{ Msg, Addr, Admin string }
		if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Msg == "serving" {
			s.url, s.admin = line.Addr, line.Admin
		}
	}
	if s.url == "" {
		t.Fatalf("serve: %v", lines.Err())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			t.Log(lines.Text())
		}
	}()
	t.Cleanup(func() {
		cancel()
		s.client.CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		<-read
	})
	s.ready()
	return s
}

func (s *server) ready() {
	s.t.Helper()
	s.eventually("ready", func() bool {
		response, body := s.get("/readyz")
		return response.StatusCode == http.StatusOK && body == "ready\n"
	})
}

// degraded waits until the server has lost the database. It stays ready.
func (s *server) degraded() {
	s.t.Helper()
	s.eventually("degraded", func() bool {
		response, body := s.get("/readyz")
		return response.StatusCode == http.StatusOK && strings.HasPrefix(body, "ready, degraded: ")
	})
}

// eventually waits until the condition holds.
func (s *server) eventually(what string, condition func() bool) {
	s.t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not %s in time", what)
		}
	}
}

func token(t *testing.T, account string, ttl time.Duration) string {
	t.Helper()
	token, err := auth.JWT{Keys: auth.Secret(secret), Claim: "sub"}.Mint(account, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// request makes one of Ada's, with headers "Name: value" that replace what it has.
func (s *server) request(path string, headers ...string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token(s.t, ada, time.Hour))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Set(name, value)
	}
	return r
}

// get reads a whole answer.
func (s *server) get(path string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	return s.do(s.request(path, headers...))
}

func (s *server) do(r *http.Request) (*http.Response, string) {
	s.t.Helper()
	return s.doBy(s.client, r)
}

func (s *server) doBy(client *http.Client, r *http.Request) (*http.Response, string) {
	s.t.Helper()
	response, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response, string(body)
}

// metric is the value of a series, or "" if there is none.
func (s *server) metric(name string) string {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.admin+"/metrics", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_, body := s.doBy(http.DefaultClient, r) // the server's may speak HTTP/2 only
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return value
		}
	}
	return ""
}

func (s *server) exec(text string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), text, args...); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
}

// insert makes a running job of Ada's.
func (s *server) insert() (id string) {
	s.t.Helper()
	id = uuid.NewString()
	s.exec(`insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 10}')`, id, ada)
	return id
}

func (s *server) progress(id string, done int) {
	s.t.Helper()
	s.exec(`update job set progress = jsonb_build_object('total', 10, 'done', $2::int, 'succeeded', $2::int) where id = $1`, id, done)
}

// stream is an open stream and what it said.
type stream struct {
	s        *server
	response *http.Response
	cancel   func()
	blocks   chan string // an event or comment each, without the blank line
	ended    chan struct{}
	err      error // how it ended; may be looked at once ended is closed
}

// open opens the stream of a job.
func (s *server) open(path string, headers ...string) *stream {
	s.t.Helper()
	r := s.request(path, headers...)
	ctx, cancel := context.WithCancel(r.Context())
	response, err := s.client.Do(r.WithContext(ctx))
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	st := &stream{s: s, response: response, cancel: cancel, blocks: make(chan string, 10_000), ended: make(chan struct{})}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		s.t.Fatalf("%s: %s: %s", path, response.Status, body)
	}
	go st.read()
	s.t.Cleanup(st.close)
	return st
}

func (st *stream) read() {
	defer close(st.ended)
	defer st.response.Body.Close()
	scanner := bufio.NewScanner(st.response.Body)
	scanner.Buffer(nil, 1<<20)
	scanner.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if before, _, found := bytes.Cut(data, []byte("\n\n")); found {
			return len(before) + 2, before, nil
		}
		if atEOF && len(data) > 0 {
			return len(data), bytes.TrimSuffix(data, []byte("\n")), nil
		}
		return 0, nil, nil
	})
	for scanner.Scan() {
		st.blocks <- scanner.Text()
	}
	st.err = scanner.Err()
}

func (st *stream) close() {
	st.cancel()
	<-st.ended
}

// next is the next block.
func (st *stream) next() string {
	st.s.t.Helper()
	select {
	case b := <-st.blocks:
		return b
	case <-time.After(deadline):
		st.s.t.Fatal("the stream says nothing")
		return ""
	}
}

// until skips blocks up to one that contains the text, and returns that.
func (st *stream) until(text string) string {
	st.s.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case b := <-st.blocks:
			if strings.Contains(b, text) {
				return b
			}
		case <-timeout:
			st.s.t.Fatalf("the stream does not say %s", text)
		}
	}
}

// ends waits for the end of the stream, which must be a clean one.
func (st *stream) ends() {
	st.s.t.Helper()
	select {
	case <-st.ended:
		if st.err != nil {
			st.s.t.Errorf("the stream ends with %v", st.err)
		}
	case <-time.After(deadline):
		st.s.t.Fatal("the stream does not end")
	}
}

func eventID(block string) string {
	_, id, _ := strings.Cut(block, "id: ")
	id, _, _ = strings.Cut(id, "\n")
	return id
}

func streamOf(id string) string { return "/api/jobs/" + id + "/progress" }

func doneEvent(done int) string { return fmt.Sprintf(`"type":"progress","done":%d,`, done) }
