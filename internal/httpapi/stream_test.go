package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	someJob = job.ID("aaaaaaaa-0000-4000-8000-000000000000")
	owner   = "11111111-0000-4000-8000-000000000000"
)

// until is an Authenticator of the owner's whose credentials end some time from now.
type until time.Duration

func (u until) Authenticate(*http.Request) (auth.Viewer, error) {
	return auth.Viewer{Account: owner, Expires: time.Now().Add(time.Duration(u))}, nil
}

// viewer is a client's end: what was written to it, and whether it takes more.
type viewer struct {
	mu       sync.Mutex
	written  bytes.Buffer
	writes   []string
	deadline time.Time
	stalled  bool
	header   http.Header
	status   int
}

func (v *viewer) Header() http.Header    { return v.header }
func (v *viewer) WriteHeader(status int) { v.status = status }

func (v *viewer) SetWriteDeadline(deadline time.Time) error {
	v.deadline = deadline
	return nil
}

func (v *viewer) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stalled {
		time.Sleep(time.Until(v.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	v.writes = append(v.writes, string(p))
	return v.written.Write(p)
}

func (v *viewer) FlushError() error { return nil }

// take returns what was written since the last time.
func (v *viewer) take() string {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	text := v.written.String()
	v.written.Reset()
	return text
}

// open opens a stream of someJob in the bubble, and returns its viewer and a channel that is closed when it ends.
func open(t *testing.T, a *API, query string) (*viewer, <-chan struct{}) {
	t.Helper()
	handler, err := a.Handler()
	if err != nil {
		t.Fatal(err)
	}
	v := &viewer{header: http.Header{}}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/api/jobs/"+string(someJob)+"/progress"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		handler.ServeHTTP(v, r)
	}()
	synctest.Wait()
	if feed := a.config.Hub.Feed(); len(feed.Begin(10)) > 0 {
		feed.Finish([]job.Snapshot{{ID: someJob, Found: true, State: running(1)}}, "1:1:", job.Buckets{}.Complement())
	}
	return v, ended
}

// change notifies a change of someJob, and has it read.
func change(a *API, s job.State) {
	feed := a.config.Hub.Feed()
	feed.Want(someJob)
	feed.Begin(10)
	feed.Finish([]job.Snapshot{{ID: someJob, Found: true, State: s}}, "2:2:", job.Buckets{}.Complement())
}

func running(done int64) job.State {
	return job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: done, Total: 10}}
}

// newAPI is an API that runs in the bubble, until the test ends.
func newAPI(t *testing.T, authenticator Authenticator, settings ...func(*Config)) *API {
	t.Helper()
	registry := prometheus.NewRegistry()
	h := hub.New(registry)
	h.Feed().SetTable(job.Table{IDType: job.IDUUID, Deleted: job.DeletedGone})
	h.Feed().SetLive()
	c := Config{
		Hub: h, Auth: authenticator,
		PingInterval: 30 * time.Second, RecheckInterval: time.Hour, WriteTimeout: 10 * time.Second, MaxStreams: 1000, MaxStreamsPerAccount: 1000,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Registry: registry,
	}
	for _, set := range settings {
		set(&c)
	}
	a := New(c)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a
}

func ended(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestPingAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, until(time.Hour))
		plain, _ := open(t, a, "")
		asked, _ := open(t, a, "?heartbeat=1")
		plain.take()
		asked.take()
		time.Sleep(23 * time.Second)
		change(a, running(2))
		if got := plain.take(); !strings.Contains(got, `"done":2`) || strings.Contains(got, "ping") {
			t.Errorf("after a change: %q", got)
		}
		asked.take()
		for round := range 20 {
			time.Sleep(24*time.Second - time.Millisecond)
			if got := plain.take(); got != "" && round == 0 {
				t.Errorf("24 s after a frame: %q", got)
			}
			time.Sleep(3*time.Second + time.Millisecond)
			if got := plain.take(); got != ": ping\n\n" && round == 0 {
				t.Errorf("27 s after a frame: %q", got)
			}
		}
		if got := asked.take(); !strings.HasPrefix(got, ": ping\n\nevent: heartbeat\ndata: {\"interval\":30000}\n\n: ping\n\n") {
			t.Errorf("to one who asked: %q", got)
		}
	})
}

// Nobody is let in by credentials that ended while the stream waited for the job.
func TestCredentialsThatExpireWhileTheJobIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, until(time.Second))
		handler, err := a.Handler()
		if err != nil {
			t.Fatal(err)
		}
		v := &viewer{header: http.Header{}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/api/jobs/"+string(someJob)+"/progress", nil)
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			handler.ServeHTTP(v, r)
		}()
		synctest.Wait()
		a.config.Hub.Feed().Begin(10)
		a.config.Hub.Feed().Finish([]job.Snapshot{{ID: someJob}}, "1:1:", job.Buckets{}.Complement())
		time.Sleep(time.Second)
		if !ended(answered) || v.status != http.StatusUnauthorized {
			t.Errorf("status %d", v.status)
		}
	})
}

// Some scanners hold back what comes first until there is more.
func TestFirstBatchIsFollowedByAWriteOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := open(t, newAPI(t, until(time.Hour)), "?heartbeat=1")
		v.take()
		if len(v.writes) != 2 || !strings.Contains(v.writes[0], `"status":"running"`) || v.writes[1] != ": ping\n\n" {
			t.Errorf("writes %q", v.writes)
		}
		if !strings.Contains(v.writes[0], "\nevent: heartbeat\ndata: {\"interval\":30000}\n\n") {
			t.Errorf("the first write is %q", v.writes[0])
		}
	})
}

func TestStreamEndsAtItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, until(time.Hour), func(c *Config) { c.MaxStreamAge = time.Minute })
		v, end := open(t, a, "")
		time.Sleep(47 * time.Second)
		if ended(end) {
			t.Error("the stream ended too early")
		}
		v.take()
		time.Sleep(13 * time.Second)
		if !ended(end) {
			t.Error("the stream goes on")
		}
		if got := v.take(); !regexp.MustCompile(`(^|\n)retry: [1-4]\d\d\n$`).MatchString(got) {
			t.Errorf("before its end: %q", got)
		}
	})
}

func TestStreamEndsWithItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, end := open(t, newAPI(t, until(time.Hour)), "")
		time.Sleep(time.Hour - time.Second)
		if ended(end) {
			t.Error("the stream ended too early")
		}
		v.take()
		time.Sleep(time.Second)
		if !ended(end) {
			t.Error("the stream goes on")
		}
		if got := v.take(); !regexp.MustCompile(`(^|\n)retry: [1-4]\d\d\n$`).MatchString(got) {
			t.Errorf("before its end: %q", got)
		}
	})
}

func TestViewerThatDoesNotReadIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, until(time.Hour))
		v, end := open(t, a, "")
		v.take()
		v.mu.Lock()
		v.stalled = true
		v.mu.Unlock()
		change(a, running(2))
		time.Sleep(10*time.Second - time.Millisecond)
		if ended(end) {
			t.Error("the stream ended too early")
		}
		time.Sleep(time.Millisecond)
		if !ended(end) {
			t.Error("the stream goes on")
		}
	})
}

func TestSilentStreamHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := open(t, newAPI(t, until(time.Hour)), "")
		v.take()
		if !v.deadline.IsZero() {
			t.Errorf("the deadline of the last write is still set")
		}
	})
}

func TestDrainSpreadsTheEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, until(time.Hour))
		ends := make([]<-chan struct{}, 300)
		for i := range ends {
			_, ends[i] = open(t, a, "")
		}
		drained := make(chan error, 1)
		go func() { drained <- a.Drain(t.Context(), 6*time.Second) }()
		for second, last := 1, 0; second <= 6; second++ {
			time.Sleep(time.Second)
			now := 0
			for _, end := range ends {
				if ended(end) {
					now++
				}
			}
			if n := now - last; n < 20 || n > 90 { // 50 on average
				t.Errorf("%d streams ended in second %d", n, second)
			}
			last = now
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
}

func TestDrainEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, until(time.Hour))
		open(t, a, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Drain(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestTheMoreAreTurnedAwayTheLongerTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c retryDelay
		longest := func(n int) (longest time.Duration) {
			for range n {
				if w := c.next(); w < time.Second || w > time.Second+mostSpread {
					t.Errorf("wait %s", w)
				} else {
					longest = max(longest, w)
				}
			}
			return longest
		}
		if w := longest(10); w > time.Second+leastSpread {
			t.Errorf("few wait %s", w)
		}
		if w := longest(4000); w < 10*time.Second {
			t.Errorf("many wait only %s", w)
		}
		time.Sleep(2 * delayPeriod)
		if w := longest(10); w > time.Second+leastSpread {
			t.Errorf("few wait %s after the retryDelay has gone", w)
		}
	})
}
