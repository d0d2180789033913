package bus

import (
	"errors"
	"sync"

	"jobprogress/internal/job"
)

// ear is what the listener has heard. The listener writes, the reader looks.
type ear struct {
	news chan struct{} // holds a token when there is something new besides heard

	mu        sync.Mutex
	session   int   // counts the LISTENs
	listening bool  // the present one is in force
	trouble   error // why not
	echo      string
	heard     [len(job.Buckets{})]int // notifications since the last take
}

func newEar() *ear {
	return &ear{news: make(chan struct{}, 1), trouble: errors.New("connecting")}
}

// hearing is how the listener is.
type hearing struct {
	session   int
	listening bool
	trouble   error
	echo      string // the last probe that came back
}

func (e *ear) hearing() hearing {
	e.mu.Lock()
	defer e.mu.Unlock()
	return hearing{e.session, e.listening, e.trouble, e.echo}
}

func (e *ear) tell(change func()) {
	e.mu.Lock()
	change()
	e.mu.Unlock()
	select {
	case e.news <- struct{}{}:
	default:
	}
}

// opened says that a new LISTEN is in force.
func (e *ear) opened() {
	e.tell(func() { e.session, e.listening, e.trouble = e.session+1, true, nil })
}

// closed says that there is none, and why.
func (e *ear) closed(err error) { e.tell(func() { e.listening, e.trouble = false, err }) }

// echoed says that a probe has come back.
func (e *ear) echoed(probe string) { e.tell(func() { e.echo = probe }) }

// count counts a notification.
func (e *ear) count(bucket byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[bucket]++
}

// take returns the notifications counted since the last take.
func (e *ear) take() (heard [len(job.Buckets{})]int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard, e.heard = e.heard, heard
	return heard
}
