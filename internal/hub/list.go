package hub

import (
	"fmt"
	"slices"
	"time"

	"jobprogress/internal/job"
)

// list is the jobs of an account, in order. It is read again and again while somebody looks at it. Guarded by Hub.mu.
type list struct {
	account string
	lookers map[*List]bool
	known   bool // it has been read
	ids     []job.ID
	leaving map[job.ID]bool // those of ids that were not in the last read
	wanted  bool
	awaited []*read   // that have not begun
	reading []*read   // that have
	failed  bool      // the last read; the next is of this list alone
	retryAt time.Time // not to be polled before, after a failure
}

// List looks at an account's list.
type List struct {
	hub   *Hub
	list  *list
	waker Waker // guarded by Hub.mu
}

// joinList looks at an account's list, and returns the read that must be waited for.
func (h *Hub) joinList(account string) (*List, *read) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lists[account]
	if l == nil {
		l = &list{account: account, lookers: make(map[*List]bool)}
		h.lists[account] = l
	}
	looker := &List{hub: h, list: l}
	l.lookers[looker] = true
	if len(l.awaited) == 0 {
		l.awaited = append(l.awaited, &read{done: make(chan struct{})})
	}
	l.wanted = true
	h.wakeUp()
	return looker, l.awaited[0]
}

// Watch has the waker woken with each change of the list from now on.
func (l *List) Watch(w Waker) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.waker = w
}

// IDs are the jobs of the list, in order. Nobody may write to it.
func (l *List) IDs() []job.ID {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return l.list.ids
}

// Close ends it. It may be called more than once.
func (l *List) Close() {
	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(l.list.lookers, l)
	if len(l.list.lookers) == 0 && h.lists[l.list.account] == l.list {
		delete(h.lists, l.list.account)
		l.list.end(nil)
	}
}

// end ends the reads that have begun. The caller holds Hub.mu.
func (l *list) end(err error) {
	for _, r := range l.reading {
		r.err = err
		close(r.done)
	}
	l.reading = nil
}

// PollLists has all lists read again. It reports whether those of the last time have been read.
func (f Feed) PollLists() (done bool) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lists {
		if l.wanted {
			return false
		}
	}
	for _, l := range h.lists {
		if l.retryAt.IsZero() || time.Now().After(l.retryAt) {
			l.wanted = true
			h.wakeUp()
		}
	}
	return true
}

// BeginLists returns the accounts whose lists are to be read now, at most limit. One whose last read failed is read alone,
// after the others.
func (f Feed) BeginLists(limit int) (accounts []string) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	begin := func(l *list) {
		l.wanted = false
		l.reading, l.awaited = append(l.reading, l.awaited...), nil
		accounts = append(accounts, l.account)
	}
	var failed *list
	for _, l := range h.lists {
		switch {
		case !l.wanted:
		case l.failed:
			failed = l
		case len(accounts) == limit:
			h.wakeUp()
			return accounts
		default:
			begin(l)
		}
	}
	if failed == nil {
		return accounts
	}
	if len(accounts) == 0 {
		begin(failed)
	}
	h.wakeUp()
	return accounts
}

// FinishLists takes in what a read saw: the jobs of each account, in the order in which viewers are shown them. A job that
// leaves a list stays until the next read: its row is read first, and says why.
func (f Feed) FinishLists(lists map[string][]job.ID) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for account, ids := range lists {
		l := h.lists[account]
		if l == nil {
			continue
		}
		leaving := make(map[job.ID]bool)
		for _, id := range l.ids {
			if slices.Contains(ids, id) || l.leaving[id] {
				continue
			}
			leaving[id] = true
			ids = append(ids, id)
			if t := h.topics[id]; t != nil {
				h.want(t)
			}
		}
		l.leaving, l.failed, l.retryAt = leaving, false, time.Time{}
		if !l.known || !slices.Equal(l.ids, ids) {
			l.known, l.ids = true, ids
			for looker := range l.lookers {
				if looker.waker != nil {
					looker.waker.Wake()
				}
			}
		}
		l.end(nil)
	}
}

// FailLists says that the lists could not be read. Those who wait for one get the error.
func (f Feed) FailLists(accounts []string, err error) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, account := range accounts {
		if l := h.lists[account]; l != nil {
			l.failed, l.retryAt = true, time.Now().Add(mostRetry)
			l.end(fmt.Errorf("%w: %w", ErrUnavailable, err))
		}
	}
}

// RetryLists says that a session was lost before it could read the lists. Those who wait for one wait for the next session.
func (f Feed) RetryLists(accounts []string) {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, account := range accounts {
		if l := h.lists[account]; l != nil {
			l.awaited, l.reading = append(l.reading, l.awaited...), nil
			l.wanted = true
			h.wakeUp()
		}
	}
}
