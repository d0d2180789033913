package bus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// The steps of a hand-over. Two transactions update the job; the second had its transaction id first.
const (
	listens = iota
	subscribes
	snapshotBegins
	snapshotEnds
	firstCommits
	firstNoticed
	secondCommits
	secondNoticed
	steps
)

var stepNames = [steps]string{"listen", "subscribe", "snapshot begins", "snapshot ends", "1st commits", "1st noticed", "2nd commits", "2nd noticed"}

// before is what can't happen in another order: the bus listens before it reads, and hears in commit order.
var before = [][2]int{
	{listens, snapshotBegins}, {subscribes, snapshotBegins}, {snapshotBegins, snapshotEnds},
	{firstCommits, firstNoticed}, {firstCommits, secondCommits}, {secondCommits, secondNoticed}, {firstNoticed, secondNoticed},
}

// interleavings are all possible orders of the steps.
func interleavings(done []int) [][]int {
	if len(done) == steps {
		return [][]int{slices.Clone(done)}
	}
	var all [][]int
	for step := range int(steps) {
		allowed := !slices.Contains(done, step)
		for _, b := range before {
			allowed = allowed && (b[1] != step || slices.Contains(done, b[0]))
		}
		if allowed {
			all = append(all, interleavings(append(done, step))...)
		}
	}
	return all
}

func TestHandOverInEveryInterleaving(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	rows, err := store.Open(url, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	orders := interleavings(nil)
	if len(orders) < 100 {
		t.Fatalf("only %d interleavings", len(orders))
	}
	first, second, listener := connect(t, url), connect(t, url), connect(t, url)
	watchAll(t, connect(t, url)) // another server's
	for _, order := range orders {
		h := &handOver{t: t, order: order, store: rows, first: first, second: second, listener: listener}
		h.run()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d interleavings", len(orders))
}

type handOver struct {
	t     *testing.T
	order []int
	store *store.Store

	first, second, listener *pgx.Conn

	id        job.ID
	hub       *hub.Hub
	watching  chan *hub.Watcher
	watcher   *hub.Watcher
	cursor    hub.Cursor
	seen      []int64 // the states that the viewer saw, in order: 0, 1, 2
	committed int64
	listening bool
	notified  [3]bool // by state

	epoch     uint64
	snapshots []job.Snapshot
}

func (h *handOver) run() {
	h.hub = hub.New(prometheus.NewRegistry())
	h.hub.SetLive(true)
	h.watching = make(chan *hub.Watcher, 1)
	h.id = job.ID(uuid.NewString())
	h.exec(h.first, `insert into job (id, account_id, type, status, progress) values ($1, '`+ada+`', 'matching', 'running', '{"total": 9}')`, h.id)
	h.exec(h.listener, `unlisten *`)
	h.exec(h.second, `begin`)
	h.exec(h.second, `select pg_current_xact_id()`)
	h.exec(h.first, `begin`)
	h.exec(h.first, `update job set progress = '{"total": 9, "done": 1}' where id = $1`, h.id)
	for _, step := range h.order {
		h.step(step)
		h.look()
	}
	for h.read() {
	}
	h.look()
	if len(h.seen) == 0 || h.seen[len(h.seen)-1] != 2 {
		h.fail("the viewer ends without the last state")
	}
	h.watcher.Close()
}

func (h *handOver) step(step int) {
	switch step {
	case listens:
		h.exec(h.listener, `listen jobprogress`)
		h.hub.Relisten()
		h.hub.Arm(all)
		h.listening = true
	case subscribes:
		go func() {
			w, err := h.hub.Watch(h.t.Context(), h.id)
			if err != nil {
				h.t.Error(err)
			}
			h.watching <- w
		}()
		<-h.hub.Wanted()
	case snapshotBegins:
		h.begin()
	case snapshotEnds:
		h.hub.Settle(h.epoch, h.snapshots)
		h.watcher = <-h.watching
	case firstCommits:
		h.exec(h.first, `commit`)
		h.commits(1)
	case secondCommits:
		h.exec(h.second, `update job set progress = '{"total": 9, "done": 2}' where id = $1`, h.id)
		h.exec(h.second, `commit`)
		h.commits(2)
	case firstNoticed:
		h.notice(1)
	case secondNoticed:
		h.notice(2)
	}
}

func (h *handOver) begin() {
	ids := h.hub.Next(10)
	h.epoch = h.hub.Take(ids)
	var err error
	if h.snapshots, err = h.store.Snapshot(h.t.Context(), ids); err != nil {
		h.t.Fatal(err)
	}
}

// read does what the bus does after all that: it reads as long as something is wanted.
func (h *handOver) read() bool {
	h.begin()
	h.hub.Settle(h.epoch, h.snapshots)
	return len(h.snapshots) > 0
}

// commits notes that a state is committed, and whether a notice of it will come.
func (h *handOver) commits(state int64) {
	h.committed = state
	h.notified[state] = h.listening
}

// notice takes the notice of a state to the hub, if one was sent while somebody listened.
func (h *handOver) notice(state int64) {
	if !h.notified[state] {
		return
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), deadline)
	defer cancel()
	n, err := h.listener.WaitForNotification(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	notice, err := job.ParseNotice(n.Payload)
	if err != nil {
		h.t.Fatal(err)
	}
	if notice.State.Progress.Done != state {
		h.fail("the notice of %d came when that of %d was due", notice.State.Progress.Done, state)
	}
	h.hub.Apply(notice)
}

// look has the viewer see what there is to see, and checks it.
func (h *handOver) look() {
	if h.watcher == nil {
		return
	}
	b := h.watcher.Changes(h.cursor)
	h.cursor = b.Cursor
	for _, f := range b.Frames {
		if !strings.Contains(string(f.Data), `"progress"`) {
			continue
		}
		var done int64
		if _, err := fmt.Sscanf(string(f.Data), `data: {"type":"progress","done":%d`, &done); err != nil {
			h.t.Fatal(err)
		}
		if done > h.committed {
			h.fail("the viewer saw %d before it was committed", done)
		}
		if len(h.seen) > 0 && done <= h.seen[len(h.seen)-1] {
			h.fail("the viewer saw %d after %v", done, h.seen)
		}
		h.seen = append(h.seen, done)
	}
}

func (h *handOver) exec(conn *pgx.Conn, text string, args ...any) {
	if _, err := conn.Exec(h.t.Context(), text, args...); err != nil {
		h.t.Fatalf("%s: %v", text, err)
	}
}

func (h *handOver) fail(format string, args ...any) {
	names := make([]string, len(h.order))
	for i, step := range h.order {
		names[i] = stepNames[step]
	}
	h.t.Errorf("%s\norder: %s; seen %v", fmt.Sprintf(format, args...), strings.Join(names, ", "), h.seen)
}
