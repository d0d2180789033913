package httpapi

import (
	"math/rand/v2"
	"sync"
	"time"

	"jobprogress/internal/auth"
)

// limits counts the open streams.
type limits struct {
	max, maxPerAccount int

	mu       sync.Mutex
	open     int
	accounts map[string]*account
	empty    chan struct{} // closed when open becomes 0; nil when nobody asked
}

// account is one that has streams open.
type account struct {
	name string
	open int
}

func newLimits(most, mostPerAccount int) *limits {
	return &limits{max: most, maxPerAccount: mostPerAccount, accounts: make(map[string]*account)}
}

// acquire takes a place for a stream, or fails with errOverCapacity or errTooManyStreams. It returns the account's name, which
// all streams of the account share.
func (l *limits) acquire(v auth.Viewer) (name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[v.Account]
	switch {
	case l.open >= l.max:
		return "", errOverCapacity
	case a == nil:
		a = &account{name: v.Account}
		l.accounts[v.Account] = a
	case !v.Anyone && a.open >= l.maxPerAccount:
		return "", errTooManyStreams
	}
	l.open++
	a.open++
	return a.name, nil
}

// release gives a place back.
func (l *limits) release(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	a := l.accounts[name]
	if a.open--; a.open == 0 {
		delete(l.accounts, name)
	}
	if l.open == 0 && l.empty != nil {
		close(l.empty)
		l.empty = nil
	}
}

// idle is closed as soon as no stream is open.
func (l *limits) idle() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.empty == nil {
		l.empty = make(chan struct{})
	}
	empty := l.empty
	if l.open == 0 {
		close(l.empty)
		l.empty = nil
	}
	return empty
}

const (
	// returnRate is how many of those turned away may come back in a second.
	returnRate = 200
	// leastSpread and mostSpread bound the time over which they come back.
	leastSpread = 2 * time.Second
	mostSpread  = time.Minute
	// delayPeriod is how long a refusal counts, at least; at most twice as long.
	delayPeriod = 10 * time.Second
)

// retryDelay spreads the return of those turned away: the more of them there are, the longer each waits.
type retryDelay struct {
	mu            sync.Mutex
	now, previous int // refusals of this period and of the one before
	since         time.Time
}

// next counts a refusal and says how long its client is to stay away.
func (r *retryDelay) next() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := time.Since(r.since); age >= delayPeriod {
		r.previous, r.now = r.now, 0
		if age >= 2*delayPeriod {
			r.previous = 0
		}
		r.since = time.Now()
	}
	r.now++
	spread := time.Duration(r.now+r.previous) * time.Second / returnRate
	return time.Second + rand.N(min(max(spread, leastSpread), mostSpread))
}
