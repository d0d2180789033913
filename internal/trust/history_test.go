package trust

import (
	"fmt"
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
	owners  map[string]map[string]bool // job → the accounts that it ever had
	deleted map[string]bool            // jobs whose deletion was at least tried
}

// outcome is what became of a transaction.
type outcome string

const (
	unknown   outcome = "unknown"
	committed outcome = "committed"
	aborted   outcome = "aborted"
	overtaken outcome = "overtaken" // by a later write of its transaction, or by a rollback to a savepoint
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
	run     int64 // how often the job was started
	done    int64 // -1 until it is known; grows with each committed update of a run
	err     int64 // the seq in the error text; 0 is none
	item    string
}

func newHistory() *history {
	return &history{
		start:   time.Now(),
		writes:  make(map[int64]*write),
		owners:  make(map[string]map[string]bool),
		deleted: make(map[string]bool),
	}
}

// begin notes that a write is about to be sent.
func (h *history) begin(job, item string) *write {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	w := &write{seq: h.next, job: job, item: item, at: time.Since(h.start), outcome: unknown, done: -1}
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

// unresolved are the writes whose transaction is known, and its outcome not.
func (h *history) unresolved() (writes []*write) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.writes {
		if w.outcome == unknown && w.xid != "" {
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
		if w.job == job && (w.xid != "" || w.outcome != overtaken) {
			writes = append(writes, w)
		}
	}
	sort.Slice(writes, func(i, j int) bool { return writes[i].seq < writes[j].seq })
	var b strings.Builder
	for _, w := range writes[max(0, len(writes)-most):] {
		fmt.Fprintf(&b, "  %8.3f  write %d  xid %s  %s  run %d done %d  %s  error %d  account %.4s  %s\n",
			w.at.Seconds(), w.seq, w.xid, w.outcome, w.run, w.done, w.status, w.err, strings.TrimLeft(w.account, "0-4"), w.item)
	}
	return b.String()
}
