package stream

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

const (
	someJob = job.ID("aaaaaaaa-0000-4000-8000-000000000000")
	owner   = "11111111-0000-4000-8000-000000000000"
)

// viewer is a sink that keeps what it is sent. It is full for so many questions.
type viewer struct {
	fullFor int
	text    []byte
	ended   bool
}

func (v *viewer) full() bool {
	v.fullFor--
	return v.fullFor >= 0
}

func (v *viewer) write(t text, _ bool) error {
	v.text = append(v.text, bytes.Clone(t.bytes())...)
	return nil
}

func (v *viewer) moves() bool { return false }

func (v *viewer) finish() { v.ended = true }
func (v *viewer) cut()    { v.ended = true }

// bench is a loop whose turns the test takes.
type bench struct {
	t   *testing.T
	hub *hub.Hub
	*loop
}

func newBench(t *testing.T) *bench {
	registry := prometheus.NewRegistry()
	h := hub.New(registry)
	h.Feed().SetTable(job.Table{IDType: job.IDUUID, Deleted: job.DeletedGone})
	h.Feed().SetLive()
	set := New(Config{
		Hub: h, PingInterval: time.Minute, RecheckInterval: time.Hour, WriteTimeout: 10 * time.Second,
		Release: func(string) {}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Registry: registry,
	})
	return &bench{t, h, set.loops[0]}
}

// read has someJob read, as it is then.
func (b *bench) read(found bool, status job.Status, done int64) {
	feed := b.hub.Feed()
	feed.Want(someJob)
	feed.Begin(10)
	state := job.State{Account: owner, Status: status, Progress: job.Progress{Done: done, Total: 10}}
	feed.Finish([]job.Snapshot{{ID: someJob, Found: found, State: state}}, "1:1:", job.Buckets{}.Complement())
}

func (b *bench) turns() {
	for range 5 {
		b.turn()
	}
}

// view opens a stream.
func (b *bench) view(jobs Source, expires time.Time) (*viewer, *stream) {
	v, s := &viewer{}, &stream{source: jobs, account: owner, live: true}
	b.open(s, expires, v)
	return v, s
}

// one is the source of someJob, which is read once.
func (b *bench) one() Source {
	b.t.Helper()
	s := b.hub.Join(someJob)
	if !s.Known() {
		b.read(true, job.Running, 1)
	}
	return OneJob(s, hub.Cursor{})
}

// many is the source of someJob among many, which has been read.
func (b *bench) many(group *hub.Group) Source {
	b.t.Helper()
	b.read(true, job.Running, 1)
	if _, err := group.Wait(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return ManyJobs(group, job.DeletedGone)
}

// The job ends while the loop is at its calls, one of which has gathered a batch before.
func TestEndThatComesInTheMiddleOfATurn(t *testing.T) {
	b := newBench(t)
	_, first := b.view(b.one(), time.Time{})
	second, _ := b.view(b.one(), time.Time{})
	b.turns()
	b.read(true, job.Running, 5) // the watch is in the inbox
	b.do(func() { b.advance(first) })
	b.do(func() { b.read(true, job.Completed, 5) })
	b.turns()
	if !strings.Contains(string(second.text), `"completed"`) || !second.ended {
		t.Errorf("ended: %v, after %q", second.ended, second.text)
	}
}

// A job is deleted and comes to be again while a viewer has yet to take what it was sent before.
func TestJobThatComesBackBeforeASlowViewerLooks(t *testing.T) {
	b := newBench(t)
	ids := []job.ID{someJob}
	quick, _ := b.view(b.many(b.hub.Group(ids)), time.Time{})
	slow, stream := b.view(b.many(b.hub.Group(ids)), time.Time{})
	slow.fullFor = 2
	b.read(false, "", 0)
	b.turn()
	b.read(true, job.Running, 7)
	b.turn()
	slow.fullFor = 0
	b.advance(stream)
	b.turns()
	for name, v := range map[string]*viewer{"quick": quick, "slow": slow} {
		if _, after, removed := strings.Cut(string(v.text), `"removed"`); !removed || !strings.Contains(after, `"type":"job"`) {
			t.Errorf("the %s viewer was sent %q", name, v.text)
		}
	}
}

// A list changes in the same turn in which one of its jobs ends, which another stream shows too.
func TestListThatChangesWhileAJobEnds(t *testing.T) {
	b := newBench(t)
	lists := func(ids ...job.ID) {
		b.hub.Feed().BeginLists(10)
		b.hub.Feed().FinishLists(map[string][]job.ID{owner: ids})
	}
	keep := b.hub.Join(someJob)
	defer keep.Close()
	group := b.hub.AccountGroup(owner)
	lists(someJob)
	waited := make(chan error)
	go func() {
		_, err := group.Wait(t.Context())
		waited <- err
	}()
	for done := false; !done; {
		b.read(true, job.Running, 1)
		select {
		case err := <-waited:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(time.Millisecond):
		}
	}
	listed, _ := b.view(ManyJobs(group, job.DeletedGone), time.Time{})
	named, _ := b.view(b.many(b.hub.Group([]job.ID{someJob})), time.Time{})
	b.turn()
	lists(someJob, "bbbbbbbb-0000-4000-8000-000000000000")
	b.read(true, job.Completed, 1)
	listed.fullFor = 1
	b.turns()
	for name, v := range map[string]*viewer{"listed": listed, "named": named} {
		if !strings.Contains(string(v.text), `"completed"`) {
			t.Errorf("the viewer of the %s job was sent %q", name, v.text)
		}
	}
	if !named.ended {
		t.Error("the stream of the named job goes on")
	}
}

// Credentials end when they say, also when the clock was set since the loop began.
func TestExpiryWhenTheClockWasSet(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		b := newBench(t)
		b.began = b.began.Round(0).Add(step) // without its monotonic part, a time is compared with the wall clock only
		_, s := b.view(b.one(), time.Now().Add(15*time.Minute).Round(0))
		if left := s.endAt - b.now; left < 14*time.Minute || left > 16*time.Minute {
			t.Errorf("set by %s: the stream ends after %s", step, left)
		}
	}
}

// No interval is exceeded, whatever is rounded.
func TestPingsLeaveWithinTheirInterval(t *testing.T) {
	for _, interval := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, time.Second, 30 * time.Second} {
		for i := range 10_000 {
			wrote := time.Duration(i) * 7919 * time.Microsecond
			if due := (wrote + silence(interval) + tick - 1) / tick * tick; due-wrote > interval {
				t.Fatalf("of an interval of %s a ping leaves after %s", interval, due-wrote)
			}
		}
	}
}
