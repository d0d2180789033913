package bus

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// Slow work is told at once. Work that is too fast for that is read on the cycle instead, as a network driver polls when
// interrupts come too fast: its bucket is busy. That begins when notices come faster than the budget, and then with the
// loudest. Who is slow enough is told again.
const (
	// budget is how many changes of rows are told in a second, and half of it in one burst. A commit that notifies keeps the lock
	// for which others wait that notify, too, for some 0.4 ms with a disk: this keeps it a fifth of the time.
	budget = 500
	// busyBudget is the budget while any bucket is busy: then the writers are at full speed, and pay for each.
	busyBudget = 50
	// fast is how many changes of a job in a second are too many for it to be told again: it costs less to be read.
	fast = 3
	// A bucket is busy at least for leastBusy, and twice as long each time that it was told again and was too loud
	// within soon, up to mostBusy: to find out costs writers a burst of notices.
	leastBusy = time.Second
	mostBusy  = 8 * time.Second
	soon      = 30 * time.Second
	// window is the time after which what was heard of a bucket counts half.
	window = time.Second
)

// load knows how loud the buckets are. It belongs to the goroutine of the session; the one that reads counts what changed.
type load struct {
	changed [len(job.Buckets{})]atomic.Int64 // jobs that reads found changed

	limiter          *rate.Limiter
	halved, reviewed time.Time
	buckets          [len(job.Buckets{})]loudness
}

// loudness is what is known of one bucket.
type loudness struct {
	heard float64       // notices; halved when some come a window later
	busy  bool          // it is read on the cycle
	since time.Time     // it is busy or is not
	stay  time.Duration // it was busy at least, last time
	until time.Time     // it is busy at least
}

func (l *load) reset() {
	l.allow(budget)
	clear(l.buckets[:])
}

func (l *load) allow(budget int) {
	if l.limiter == nil || l.limiter.Limit() != rate.Limit(budget) {
		l.limiter = rate.NewLimiter(rate.Limit(budget), budget/2)
	}
}

// hear counts notices about the armed buckets. It returns which of them have become too loud, if the budget is overdrawn.
func (l *load) hear(now time.Time, notices []job.Notice, armed job.Buckets) (loud job.Buckets) {
	if now.Sub(l.halved) > window {
		l.halved = now
		for b := range l.buckets {
			l.buckets[b].heard /= 2
		}
	}
	told := 0
	for _, n := range notices {
		if b := n.Job.Bucket(); n.Kind != job.KindItem && armed[b] { // items have no row to read instead
			l.buckets[b].heard++
			told++
		}
	}
	if told == 0 || l.limiter.AllowN(now, min(told, l.limiter.Burst())) {
		return loud
	}
	// The writers will be faster than they were while they had to wait for one another, so only little is kept.
	quietest := make([]int, 0, len(armed))
	for b := range armed {
		if armed[b] {
			quietest = append(quietest, b)
		}
	}
	slices.SortFunc(quietest, func(a, b int) int { return cmp.Compare(l.buckets[a].heard, l.buckets[b].heard) })
	kept := 0.0
	for _, b := range quietest {
		if kept += l.buckets[b].heard; kept > busyBudget {
			loud[b] = true
			l.changed[b].Store(0)
			l.buckets[b].becomeBusy(now)
		}
	}
	if loud != none {
		l.allow(busyBudget)
	}
	return loud
}

func (l *loudness) becomeBusy(now time.Time) {
	if l.stay > 0 && now.Sub(l.since) < soon {
		l.stay = min(2*l.stay, mostBusy)
	} else {
		l.stay = leastBusy
	}
	l.busy, l.since, l.until = true, now, now.Add(l.stay)
}

// tellable returns which of the watched buckets are to be told: all that are not busy.
func (l *load) tellable(now time.Time, watched hub.Jobs) job.Buckets {
	if now.Sub(l.reviewed) > window {
		l.review(now, watched)
		l.reviewed = now
	}
	tellable := watched.Buckets()
	for b := range l.buckets {
		tellable[b] = tellable[b] && !l.buckets[b].busy
	}
	return tellable
}

// review ends the business of those who are slow again, if all that is watched changes slowly enough to be told.
func (l *load) review(now time.Time, watched hub.Jobs) {
	var changes [len(job.Buckets{})]float64 // a second
	total := 0.0
	for b, one := range l.buckets {
		changes[b] = one.heard
		if one.busy {
			from := l.reviewed
			if one.since.After(from) {
				from = one.since
			}
			changes[b] = float64(l.changed[b].Swap(0)) / now.Sub(from).Seconds()
		}
		total += changes[b]
	}
	if total > budget/2 {
		return
	}
	left := 0
	for b := range l.buckets {
		one := &l.buckets[b]
		if one.busy && now.After(one.until) && changes[b] <= fast*float64(watched[b]) {
			one.busy, one.since, one.heard = false, now, 0
		}
		if one.busy {
			left++
		}
	}
	if left == 0 {
		l.allow(budget)
	}
}
