package trust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

var binary string

// What could leak here is in other processes, and the network's own.
func TestMain(m *testing.M) { os.Exit(withBinary(m)) }

// withBinary builds the program first, unless TRUST_BINARY names one.
func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "jobprogress-trust-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary = os.Getenv("TRUST_BINARY"); binary == "" {
		binary = filepath.Join(dir, "jobprogress")
		if out, err := exec.Command("go", "build", "-o", binary, "jobprogress/cmd/jobprogress").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// seed is SEED, or one of today's.
func seed(t *testing.T) uint64 {
	if text := os.Getenv("SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		return n
	}
	return rand.Uint64() % 1_000_000
}

// verdict fails the test if a promise was broken, and says how to see it again.
func verdict(t *testing.T, w *world) {
	t.Helper()
	for i, v := range w.verdicts() {
		if i < 3 {
			t.Errorf("SEED=%d: %s", w.Seed, v)
		}
	}
}

func TestEachFault(t *testing.T) {
	var kept atomic.Int64
	t.Cleanup(func() { // in one world it may be chance
		if kept.Load() == 0 && !t.Failed() {
			t.Error("no item was kept")
		}
	})
	for _, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			c := config{Seed: seed(t), Binary: binary, Backstop: time.Hour, Replicas: 2, Jobs: 3, Viewers: 8, Listers: 3, Writers: 3, Buckets: 2}
			if f.Slow {
				c.Backstop = 3 * time.Second
			}
			report := newReport()
			w := newWorld(t, c, report)
			for i := range 2 {
				w.suffer(t.Context(), w.rng(i+1), f)
				w.calm(t.Context())
			}
			verdict(t, w)
			if report.faults[f.Name] == 0 {
				t.Error("the fault could not be brought about")
			}
			kept.Add(report.kept.Load())
			t.Log(report)
		})
	}
}

// What a server misses of a job while it takes its lock or gives it back, it would show as soon as the job changes again:
// so all is calm right after.
func TestGate(t *testing.T) {
	// A server that takes its locks reads again what transactions do that are under way: with one writer, there is hardly
	// ever one that would hide that something else was not read.
	for _, c := range []config{{Buckets: 1, Writers: 1}, {Buckets: 1, Writers: 6}, {Buckets: 2, Writers: 1}, {Buckets: 2, Writers: 6}} {
		t.Run(fmt.Sprint(c.Buckets, " buckets, ", c.Writers, " writers"), func(t *testing.T) {
			t.Parallel()
			c.Seed, c.Binary, c.Backstop, c.Replicas, c.Jobs, c.Viewers = seed(t), binary, time.Hour, 2, 8, 16
			report := newReport()
			w := newWorld(t, c, report)
			rng := w.rng(1)
			for round := range 12 {
				what := fault{Name: "locks taken anew", Do: terminate("jobprogress read")}
				if round%3 == 0 {
					what = fault{Name: "bursts", Do: burstOnce}
				}
				w.suffer(t.Context(), rng, what)
				w.calm(t.Context())
				if len(w.verdicts()) > 0 {
					break
				}
			}
			verdict(t, w)
			t.Log(report)
		})
	}
}

// An operator brings out a new version, and nobody misses anything.
func TestRollingRestart(t *testing.T) {
	c := config{Seed: seed(t), Binary: binary, Backstop: time.Hour, Replicas: 3, Jobs: 20, Viewers: 1000, Writers: 3, Steady: true}
	report := newReport()
	w := newWorld(t, c, report)
	w.calm(t.Context()) // all of them are there
	for _, r := range w.replicas {
		began := time.Since(w.history.start)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		stopped := time.Since(w.history.start)
		if err := r.start(); err != nil {
			t.Fatal(err)
		}
		if err := r.ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		first, last, n := w.endsOf(r.name, began, stopped)
		t.Logf("replica %d stopped within %s: %d streams ended between %s and %s", r.name, (stopped - began).Round(time.Millisecond),
			n, (first - began).Round(time.Millisecond), (last - began).Round(time.Millisecond))
		if n == 0 {
			t.Error("nobody was there to be sent away")
		}
	}
	w.finish(t.Context())
	w.calm(t.Context())
	verdict(t, w)
	if n := report.noContents.Load(); n == 0 {
		t.Error("no viewer saw an end")
	}
	t.Logf("\n%s", report)
}

// endsOf returns when the first and the last stream of a replica ended between two moments, and how many did.
func (w *world) endsOf(replica int, from, to time.Duration) (first, last time.Duration, n int) {
	first = to
	for _, v := range w.viewers {
		v.mu.Lock()
		for _, s := range v.view.seen {
			if s.what == "end" && s.replica == replica && s.at >= from && s.at <= to {
				first, last, n = min(first, s.at), max(last, s.at), n+1
			}
		}
		v.mu.Unlock()
	}
	return first, last, n
}

// finish ends all jobs that still run.
func (w *world) finish(ctx context.Context) {
	w.t.Helper()
	for _, job := range w.jobs {
		err := w.own(ctx, w.rng(1), func(one *writer) error { return one.update(ctx, job, "completed") })
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// Several faults at once, and again and again, for as long as TRUST says.
func TestAllFaults(t *testing.T) {
	duration := 15 * time.Second
	if text := os.Getenv("TRUST"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("TRUST: %v", err)
		}
	}
	first := seed(t)
	report := newReport()
	end := time.Now().Add(duration)
	for round := uint64(0); time.Now().Before(end) && !t.Failed(); round++ {
		t.Run(fmt.Sprint("seed ", first+round), func(t *testing.T) {
			c := config{Seed: first + round, Binary: binary, Backstop: time.Hour, Replicas: 3, Jobs: 6, Viewers: 24, Listers: 8, Writers: 5, Buckets: int(round/2) % 3}
			c.Mapped = (first+round)/2%2 == 1 || os.Getenv("TABLE") == "mapped"
			if round%2 == 1 {
				c.Backstop = 3 * time.Second
			}
			w := newWorld(t, c, report)
			w.storm(t.Context(), end)
			verdict(t, w)
		})
	}
	t.Logf("\n%s", report)
}

// storm brings about every fault that the world can stand, a few at a time.
func (w *world) storm(ctx context.Context, end time.Time) {
	rng := w.rng(1)
	order := rng.Perm(len(faults))
	if w.Backstop < time.Minute { // these have no other world
		for i, f := range faults {
			if f.Slow {
				order = append(order, i, i, i)
			}
		}
	}
	for _, i := range order {
		if time.Now().After(end) || len(w.verdicts()) > 0 {
			return
		}
		some := []fault{faults[i]}
		for range 2 + rng.IntN(4) {
			some = append(some, faults[rng.IntN(len(faults))])
		}
		if w.Backstop > time.Minute {
			for i, s := range slices.Backward(some) {
				if s.Slow {
					some = append(some[:i], some[i+1:]...)
				}
			}
		}
		w.suffer(ctx, rng, some...)
		w.calm(ctx)
	}
}
