package bus

import (
	"context"
	"time"

	"jobprogress/internal/store"
)

const (
	// listInterval is the least time between two polls of the lists that are watched: an account's new job is seen within
	// it. It is pollShare times longer than their reads, up to mostListInterval: within that a new owner sees a job.
	listInterval     = time.Second * 9 / 10
	mostListInterval = 15 * time.Second
	// listLimit is how many lists one statement reads.
	listLimit = 100
)

// lists says when to poll the accounts' lists. It belongs to the reader.
type lists struct {
	began time.Time     // the last poll
	took  time.Duration // all reads since then that did not fail
}

// pollLists has the lists read again if it is time to.
func (r *reader) pollLists(now time.Time) {
	interval := min(max(listInterval, pollShare*r.lists.took), mostListInterval)
	if now.Sub(r.lists.began) >= interval && r.feed.PollLists() {
		r.lists = lists{began: now}
	}
}

// readSomeLists reads a statement's worth of the lists that are wanted.
func (r *reader) readSomeLists(ctx context.Context) error {
	failures := 0
	return r.readLists(ctx, r.feed.BeginLists(listLimit), &failures)
}

// readLists halves a read that failed, as read does.
func (r *reader) readLists(ctx context.Context, accounts []string, failures *int) error {
	if len(accounts) == 0 {
		return nil
	}
	start := time.Now()
	err := r.ask(ctx, func(ctx context.Context) error {
		lists, err := store.ReadLists(ctx, r.conn, accounts)
		if err == nil {
			r.feed.FinishLists(lists)
		}
		return err
	})
	took := time.Since(start)
	r.metrics.listReads.Observe(took.Seconds())
	switch {
	case err == nil:
		r.lists.took += took
		r.answered = time.Now()
		return nil
	case r.ended(err) && len(accounts) == 1: // the read may be what ended it
		r.feed.FailLists(accounts, err)
		return err
	case r.ended(err):
		r.feed.RetryLists(accounts)
		return err
	}
	r.metrics.readsFailed.Inc()
	*failures++
	if store.TimedOut(err) {
		*failures += mostFailures/mostTimeouts - 1
	}
	if half := len(accounts) / 2; half > 0 && store.MayBeOneRow(err) && *failures < mostFailures {
		if err := r.readLists(ctx, accounts[:half], failures); err != nil {
			r.feed.RetryLists(accounts[half:])
			return err
		}
		return r.readLists(ctx, accounts[half:], failures)
	}
	r.feed.FailLists(accounts, err)
	r.unread.Do(func() {
		r.config.Log.Warn("lists not read", "accounts", len(accounts), "error", err)
	})
	return nil
}
