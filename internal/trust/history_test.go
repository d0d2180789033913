package trust

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// history is what was written. A write is noted before it is sent, so that nobody can see it earlier; what became of it
// is known later, or never.
type history struct {
	start time.Time

	mu      sync.Mutex
	next    int64
	writes  map[int64]*write
	owners  map[string]map[string]bool  // job → the accounts that it ever had
	runs    map[string]map[string]int64 // job → started → run
	deleted map[string]bool             // jobs whose deletion was at least tried
	crashes int64                       // of PostgreSQL; each begins the log of items anew
	emptied []emptied                   // times at which the log of items was truncated
}

// emptied is when a truncation began and ended.
type emptied struct{ began, ended time.Duration }

// mayBeLost reports whether an item of a write may be all that a server knows of it, though another saw a newer one: the
// log was truncated before each server had read all of it.
func (h *history) mayBeLost(w *write, seen time.Duration) bool {
	return slices.ContainsFunc(h.emptied, func(e emptied) bool { return e.ended >= w.at && e.began <= seen })
}

// outcome is what became of a transaction.
type outcome string

const (
	unknown   outcome = "unknown"
	committed outcome = "committed"
	aborted   outcome = "aborted"
	overtaken outcome = "overtaken" // by a later write of its transaction, or by a rollback to a savepoint
	unkept    outcome = "not kept"  // jobprogress.item found no server that serves the database
)

// write is one update of a row, or one call of jobprogress.item.
type write struct {
	seq     int64 // no other write's; viewers see it as "succeeded", and in errors and labels
	job     string
	at      time.Duration // since the start
	xid     string        // "" until it is known
	outcome outcome
	account string // "" until it is known, and so below
	status  string
	run     int64  // how often the job was started
	done    int64  // -1 until it is known; grows with each committed update of a run
	err     int64  // the seq in the error text; 0 is none
	started string // the run as jobprogress distinguishes it; "" is not started

	item    string // "" if the write is of the row, and what follows is of items only
	crashes int64  // of PostgreSQL before it
	logSeq  int64  // in jobprogress.item_log; starts anew with a crash; 0 until it is known
}

func newHistory() *history {
	return &history{
		start:   time.Now(),
		writes:  make(map[int64]*write),
		owners:  make(map[string]map[string]bool),
		runs:    make(map[string]map[string]int64),
		deleted: make(map[string]bool),
	}
}

// begin notes that a write is about to be sent.
func (h *history) begin(job, item string) *write {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	w := &write{seq: h.next, job: job, item: item, at: time.Since(h.start), outcome: unknown, done: -1, crashes: h.crashes}
	h.writes[w.seq] = w
	return w
}

// reserve notes n writes to a job of which it will never be known which of them committed, and returns the first seq.
func (h *history) reserve(job string, n int64) (first int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = h.next + 1
	for range n {
		h.next++
		h.writes[h.next] = &write{seq: h.next, job: job, at: time.Since(h.start), outcome: unknown, done: -1}
	}
	return first
}

// set changes what is known of writes.
func (h *history) set(change func(), owner ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	for i := 0; i+1 < len(owner); i += 2 {
		if h.owners[owner[i]] == nil {
			h.owners[owner[i]] = make(map[string]bool)
		}
		h.owners[owner[i]][owner[i+1]] = true
	}
}

// named reports whether an item is of a run that has a name. Others are shown in later runs, too.
func (w *write) named() bool { return w.started != "" && w.started != unknownRun }

// place orders what was said of an item.
func (w *write) place() int64 { return w.crashes<<40 + w.logSeq }

// startedAs notes the run that began with this started. The caller is in a change of set.
func (h *history) startedAs(job, started string, run int64) {
	if started == "" {
		return
	}
	if h.runs[job] == nil {
		h.runs[job] = make(map[string]int64)
	}
	h.runs[job][started] = run
}

// unresolved are the writes whose transaction is known, and its outcome not. Not those of items before a crash: viewers
// may have seen them, although the crash took the transaction, which had nothing else to flush.
func (h *history) unresolved() (writes []*write) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.writes {
		if w.outcome == unknown && w.xid != "" && (w.item == "" || w.crashes == h.crashes) {
			writes = append(writes, w)
		}
	}
	return writes
}

// of prints the last writes to a job.
func (h *history) of(job string, most int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var writes []*write
	for _, w := range h.writes {
		if w.job == job && w.xid != "" { // else it never was, or is one of a burst
			writes = append(writes, w)
		}
	}
	sort.Slice(writes, func(i, j int) bool { return writes[i].seq < writes[j].seq })
	var b strings.Builder
	for _, w := range writes[max(0, len(writes)-most):] {
		fmt.Fprintf(&b, "  %8.3f  write %d  xid %s  %s  ", w.at.Seconds(), w.seq, w.xid, w.outcome)
		if w.item == "" {
			fmt.Fprintf(&b, "run %d done %d  %s  error %d  account %.4s  started %s\n", w.run, w.done, w.status, w.err, strings.TrimLeft(w.account, "0-4"), w.started)
		} else {
			fmt.Fprintf(&b, "item %s  seq %d after %d crashes  of run %q, number %d\n", w.item, w.logSeq, w.crashes, w.started, h.runs[job][w.started])
		}
	}
	return b.String()
}
