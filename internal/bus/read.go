package bus

import (
	"context"
	"slices"
	"time"

	"jobprogress/internal/job"
)

const (
	// readTimeout bounds one read of many rows by primary key, also from a host that does not answer.
	readTimeout = 5 * time.Second
	// readLimit is how many jobs one statement reads. A first watcher waits for the one under way, not for a whole
	// backstop.
	readLimit = 1000
	// readPause is the wait after a read that failed, at most. Together with the listener's backoff it keeps within
	// the three seconds in which streams are right again.
	readPause = 500 * time.Millisecond
)

// read reads what the hub wants, one statement after another: a later one sees all that an earlier one saw, which is
// what the hub relies on. The backstop makes the hub want everything, and the cycle what is not told.
func (b *Bus) read(ctx context.Context) {
	backstop, tick := time.NewTimer(jitter(b.BackstopInterval)), time.NewTicker(leastCycle)
	defer backstop.Stop()
	defer tick.Stop()
	var began time.Time // the cycle
	polled := 0         // jobs, in that
	for {
		select {
		case <-ctx.Done():
			return
		case <-backstop.C:
			b.Hub.Sweep()
			backstop.Reset(jitter(b.BackstopInterval))
		case <-tick.C:
			last := b.tended.Load()
			if watched, kept := b.Hub.Watched(); last.left || last.watched != watched || last.kept != kept {
				b.orderTend(ctx)
			}
			if time.Until(began.Add(b.cycle(polled))) < leastCycle/2 { // else it is the next tick's
				began, polled = time.Now(), b.poll()
			}
		case <-b.Hub.Wanted():
		}
		b.readSome(ctx)
	}
}

// readSome reads a statement's worth of jobs.
func (b *Bus) readSome(ctx context.Context) {
	ids := b.Hub.Next(readLimit)
	// Their locks are taken before the read, so that nothing changes unnoticed after it, and no item is told in vain.
	untended := func(id job.ID) bool { return !b.tended.Load().kept[id.Bucket()] }
	if slices.ContainsFunc(ids, untended) && b.orderTend(ctx) {
		ids = slices.DeleteFunc(ids, untended) // which nobody watched at that time; who does now has them wanted again
	}
	if len(ids) == 0 {
		return
	}
	epoch := b.Hub.Take(ids)
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	start := time.Now()
	snapshots, err := b.Store.Snapshot(reading, ids)
	took := time.Since(start)
	b.metrics.reads.Observe(took.Seconds())
	if err != nil {
		b.Hub.Fail(ids, err)
		if ctx.Err() == nil {
			b.metrics.readsFailed.Inc()
			b.unread.Do(func() { b.Log.Warn("jobs not read", "jobs", len(ids), "error", err) })
			sleep(ctx, jitter(readPause))
		}
		return
	}
	b.cost.observe(len(ids), took)
	b.changes.add(b.Hub.Settle(epoch, snapshots))
}
