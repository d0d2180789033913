// Package trust proves the promises: it lets servers, writers, viewers and faults loose on one another, and compares
// what each viewer saw with what was committed. Everything in it is real: PostgreSQL, the servers' processes, and the
// network between them, which can fail.
package trust

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/pgtest"
)

// config says how large a world is, and what may happen in it.
type config struct {
	Seed     uint64
	Binary   string // of jobprogress
	Backstop time.Duration

	Replicas, Jobs, Viewers, Writers int
	Listers                          int  // viewers of many jobs
	Buckets                          int  // that the jobs are in, so that they share locks; 0 is all there are
	Mapped                           bool // the table is not like the stand-in
	Steady                           bool // viewers keep to one job, and do nothing but watch it
}

// world is all that takes part in a run.
type world struct {
	config
	t           testing.TB
	server      *pgtest.Server
	databaseURL string
	history     *history
	report      *report
	replicas    []*replica
	viewers     []*viewer
	listers     []*lister

	writing    sync.RWMutex // held by each transaction, and alone while it is calm
	restarting sync.Mutex   // held by the fault that restarts PostgreSQL
	phases     atomic.Int64 // grows with each change; odd while it is calm

	mu         sync.Mutex
	jobs       []string
	views      []*view
	violations []string
}

// report is what a run did.
type report struct {
	transactions, connections, states, finals, noContents, views atomic.Int64
	kept, unkept                                                 atomic.Int64 // items, by the log

	mu     sync.Mutex
	faults map[string]int
	failed map[string]int
	calms  []time.Duration // from the end of the faults to the last page being right
	broken int
}

// newReport makes an empty one, which several worlds may fill.
func newReport() *report { return &report{faults: make(map[string]int), failed: make(map[string]int)} }

// String is a table of it.
func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, f := range faults {
		if r.faults[f.Name]+r.failed[f.Name] > 0 {
			fmt.Fprintf(&b, "%6d  %s\n", r.faults[f.Name], f.Name)
		}
	}
	fmt.Fprintf(&b, "%d items kept, %d not, for want of a server\n", r.kept.Load(), r.unkept.Load())
	slices.Sort(r.calms)
	fmt.Fprintf(&b, "%d transactions, %d pages over %d connections saw %d states; %d final frames, %d answers 204\n",
		r.transactions.Load(), r.views.Load(), r.connections.Load(), r.states.Load(), r.finals.Load(), r.noContents.Load())
	if n := len(r.calms); n > 0 {
		fmt.Fprintf(&b, "all pages right after the faults %d times: median %s, slowest %s\n",
			n, r.calms[n/2].Round(time.Millisecond), r.calms[n-1].Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "violations: %d", r.broken)
	return b.String()
}

// newWorld makes a world for as long as the test, in which everybody is at work.
func newWorld(t testing.TB, c config, report *report) *world {
	t.Helper()
	server, databaseURL := pgtest.Own(t)
	w := &world{config: c, t: t, server: server, databaseURL: databaseURL, history: newHistory(), report: report}
	if c.Mapped {
		if err := mapJobs(t.Context(), databaseURL); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), w.databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rng := w.rng(0)
	for range c.Jobs {
		one := &writer{world: w, rng: rng}
		if one.tx, err = conn.Begin(t.Context()); err == nil {
			err = errors.Join(one.insert(t.Context(), ""), one.end(t.Context(), false))
		}
		if err != nil {
			t.Fatal(err)
		}
		w.jobs = append(w.jobs, one.moved[0][1])
		w.history.set(func() { delete(w.history.deleted, one.moved[0][1]) })
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for i := range c.Replicas {
		r, err := newReplica(i, c.Binary, w.databaseURL, c.Backstop)
		if err == nil {
			t.Cleanup(r.close)
			err = r.start()
		}
		if err != nil {
			t.Fatal(err)
		}
		w.replicas = append(w.replicas, r)
	}
	for _, r := range w.replicas {
		if err := r.ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for i := range c.Writers {
		one := &writer{world: w, rng: w.rng(1000 + i)}
		working.Go(func() { one.run(ctx) })
	}
	for i := range c.Viewers {
		v := &viewer{world: w, rng: w.rng(2000 + i), name: i, account: []string{ada, ben}[i%2],
			client: newClient(i)}
		w.viewers = append(w.viewers, v)
		working.Go(func() { v.run(ctx) })
	}
	for i := range c.Listers {
		l := newLister(w, w.rng(3000+i), i)
		w.listers = append(w.listers, l)
		working.Go(func() { l.run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		working.Wait()
	})
	return w
}

// rng is a source of chance of somebody's own, so that a seed decides what each does.
func (w *world) rng(who int) *rand.Rand { return rand.New(rand.NewPCG(w.Seed, uint64(who))) }

func (w *world) anyJob(rng *rand.Rand) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[rng.IntN(len(w.jobs))]
}

func (w *world) replace(old, next string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.jobs, old); i >= 0 {
		w.jobs[i] = next
	}
}

// anyReplica takes one that no other fault has in hand. The caller unlocks its fault.
func (w *world) anyReplica(rng *rand.Rand) *replica {
	for i := rng.IntN(len(w.replicas)); ; i = (i + 1) % len(w.replicas) {
		if w.replicas[i].fault.TryLock() {
			return w.replicas[i]
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) addView(one *view) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views = append(w.views, one)
	w.report.views.Add(1)
}

// phase counts the changes between faults and calm.
func (w *world) phase() (n int64, calm bool) {
	n = w.phases.Load()
	return n, n%2 == 1
}

// broken notes a broken promise.
func (w *world) broken(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
	w.report.mu.Lock()
	defer w.report.mu.Unlock()
	w.report.broken++
}

// suffer brings the faults about, all at once, and waits until they are mended.
func (w *world) suffer(ctx context.Context, rng *rand.Rand, some ...fault) {
	defer w.mustEnd("faults")()
	var suffering sync.WaitGroup
	for _, f := range some {
		own := rand.New(rand.NewPCG(rng.Uint64(), 0))
		suffering.Go(func() {
			pause(ctx, time.Duration(own.IntN(300))*time.Millisecond)
			err := f.Do(ctx, w, own)
			for range 5 {
				if err == nil {
					break
				}
				pause(ctx, time.Second) // the database is away, by another fault
				err = f.Do(ctx, w, own)
			}
			w.report.mu.Lock()
			defer w.report.mu.Unlock()
			if err != nil {
				w.report.failed[f.Name]++
				w.t.Logf("%s: %v", f.Name, err)
				return
			}
			w.report.faults[f.Name]++
		})
	}
	suffering.Wait()
}

// hangTimeout is long after all that has a deadline of its own.
const hangTimeout = 5 * time.Minute

// mustEnd panics if what begins now does not end, and says who waits for what. The caller calls ended.
func (w *world) mustEnd(what string) (ended func()) {
	dog := time.AfterFunc(hangTimeout, func() {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		for _, r := range w.replicas {
			fmt.Fprintf(os.Stderr, "replica %d:\n%s\n", r.name, r.log.String())
		}
		panic(fmt.Sprintf("SEED=%d: %s did not end", w.Seed, what))
	})
	return func() { dog.Stop() }
}

// verdicts are the promises that were broken so far.
func (w *world) verdicts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violations
}
