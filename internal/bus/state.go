package bus

import (
	"sync"

	"jobprogress/internal/job"
)

// listenState is how the listener's session is, and what has arrived there. The listener writes it, the reader reads it.
type listenState struct {
	changed chan struct{} // holds a token when the status has changed

	mu     sync.Mutex
	status listenStatus
	counts [len(job.Buckets{})]int // notifications since the last takeCounts
}

// listenStatus is all of it but the counts.
type listenStatus struct {
	session   int    // counts the LISTENs
	listening bool   // the present one is in force
	reason    error  // why it is not; nil before the first
	probe     string // that is under way
	echoed    bool   // it has come back
}

func newListenState() *listenState {
	return &listenState{changed: make(chan struct{}, 1)}
}

func (l *listenState) now() listenStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (l *listenState) change(change func(*listenStatus)) {
	l.mu.Lock()
	change(&l.status)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// opened says that a new LISTEN is in force.
func (l *listenState) opened() {
	l.change(func(s *listenStatus) { s.session, s.listening, s.reason = s.session+1, true, nil })
}

// closed says that there is none, and why.
func (l *listenState) closed(err error) {
	l.change(func(s *listenStatus) { s.listening, s.reason = false, err })
}

// expect says which probe is about to be sent.
func (l *listenState) expect(probe string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.probe, l.status.echoed = probe, false
}

// echo says that a probe has come back. Those of other servers do, too.
func (l *listenState) echo(probe string) {
	l.change(func(s *listenStatus) { s.echoed = s.echoed || probe == s.probe })
}

// count counts a notification.
func (l *listenState) count(bucket byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[bucket]++
}

// takeCounts returns how many notifications were counted since the last time.
func (l *listenState) takeCounts() (counts [len(job.Buckets{})]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts, l.counts = l.counts, counts
	return counts
}
