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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/pgtest"
)

// config says how large a world is, and what may happen in it.
type config struct {
	Seed     uint64
	Binary   string // of jobprogress
	Backstop time.Duration

	Replicas, Jobs, Viewers, Writers int
	Buckets                          int  // that the jobs are in, so that they share locks; 0 is all there are
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
	conn, err := pgx.Connect(t.Context(), w.databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rng := w.rng(0)
	for range c.Jobs {
		one := &writer{world: w, rng: rng}
		if one.tx, err = conn.Begin(t.Context()); err == nil {
			err = errors.Join(one.insert(t.Context(), ""), one.tx.Commit(t.Context()))
		}
		if err != nil {
			t.Fatal(err)
		}
		one.settle(committed)
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
			client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
		w.viewers = append(w.viewers, v)
		working.Go(func() { v.run(ctx) })
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

func (w *world) replace(old, new string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.jobs, old); i >= 0 {
		w.jobs[i] = new
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

// calmTimeout is the deadline for pages to be right once all is well: generous, for a promise that is measured.
const calmTimeout = 30 * time.Second

// calm lets the writers pause and waits until every page shows what its row says; then it checks all that was seen.
func (w *world) calm(ctx context.Context) {
	w.t.Helper()
	start := time.Now()
	w.writing.Lock() // with the last transaction ended
	defer w.writing.Unlock()
	rows, err := w.settle(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.phases.Add(1)
	defer w.phases.Add(1)
	var wrong string
	for end := time.Now().Add(calmTimeout + w.patience()); ; time.Sleep(5 * time.Millisecond) {
		if wrong = w.wrong(rows); wrong == "" {
			break
		}
		if time.Now().After(end) {
			w.broken("not right in time: %s", wrong)
			break
		}
	}
	took := time.Since(start)
	w.report.mu.Lock()
	w.report.calms = append(w.report.calms, took)
	w.report.mu.Unlock()
	w.check()
}

// patience is how much longer the backstop may take.
func (w *world) patience() time.Duration {
	if w.Backstop > time.Minute {
		return 0 // it is not to be waited for
	}
	return w.Backstop
}

// settle finds out what became of the transactions whose end was not heard, and reads the rows.
func (w *world) settle(ctx context.Context) (map[string]row, error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	for end := time.Now().Add(calmTimeout); time.Now().Before(end); {
		open := w.history.unresolved()
		for _, one := range open {
			var status *string
			err := conn.QueryRow(ctx, `select pg_xact_status($1::text::xid8)`, one.xid).Scan(&status)
			if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "22023" { // "in the future": the crash took it
				w.history.set(func() { one.outcome = aborted })
				continue
			}
			if err != nil {
				return nil, err
			}
			if status != nil && *status != "in progress" {
				w.history.set(func() { one.outcome = outcome(*status) })
			}
		}
		if len(open) == 0 {
			break
		}
		pause(ctx, 10*time.Millisecond)
	}
	all, err := conn.Query(ctx, `select id::text, account_id::text, status::text, coalesce(error, ''), (progress ->> 'total')::bigint,
		(progress ->> 'done')::bigint, (progress ->> 'succeeded')::bigint from job`)
	if err != nil {
		return nil, err
	}
	rows := make(map[string]row)
	var id, message string
	var r row
	_, err = pgx.ForEachRow(all, []any{&id, &r.account, &r.status, &message, &r.run, &r.done, &r.seq}, func() error {
		r.err = number(message)
		rows[id] = r
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, job := range w.jobs { // a job that was deleted without our knowing
		if _, found := rows[job]; !found {
			for id := range rows {
				w.jobs[i] = id
			}
		}
	}
	return rows, err
}

// wrong names a page that is not as its row, or "".
func (w *world) wrong(rows map[string]row) string {
	phase, _ := w.phase()
	for _, v := range w.viewers {
		v.mu.Lock()
		wrong := "it has not looked yet"
		one := v.view
		if one != nil && (one.ended == "" || one.phase == phase) {
			r, found := rows[one.job]
			wrong = one.differs(r, found)
		}
		if wrong != "" && one != nil {
			wrong += "\n" + one.print(60) + "history\n" + w.history.of(one.job, 60)
		}
		v.mu.Unlock()
		if wrong != "" {
			return wrong
		}
	}
	return ""
}

func (w *world) check() {
	w.mu.Lock()
	views := slices.Clone(w.views)
	w.mu.Unlock()
	for _, one := range views {
		one.viewer.mu.Lock()
		if broken := one.check(w.history); broken != "" {
			w.broken("%s\n%shistory\n%s", broken, one.print(60), w.history.of(one.job, 60))
			one.checked = len(one.seen)
		}
		one.viewer.mu.Unlock()
	}
}

// verdicts are the promises that were broken so far.
func (w *world) verdicts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violations
}
