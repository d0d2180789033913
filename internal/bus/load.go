package bus

import (
	"cmp"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"

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
	// A bucket is busy at least for leastBusy, and twice as long each time that it was told again and was too loud
	// within soon, up to mostBusy: to find out costs writers a burst of notices.
	leastBusy = time.Second
	mostBusy  = 8 * time.Second
	soon      = 30 * time.Second
	// window is the time after which what was heard of a bucket counts half.
	window = time.Second
)

// load knows how loud the buckets are. It belongs to the goroutine of the session.
type load struct {
	changes          *changes // what the reader found
	limiter          *rate.Limiter
	halved, reviewed time.Time
	reviewedIn       int64 // the cycle
	buckets          [len(job.Buckets{})]loudness
}

// loudness is what is known of one bucket.
type loudness struct {
	heard float64       // notices, fading: between those of a second and twice that
	busy  bool          // it is read on the cycle
	since time.Time     // it is busy or is not
	cycle int64         // in which it became busy
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

// hear counts notices. It returns which of the armed buckets have become too loud, if the budget is overdrawn.
func (l *load) hear(now time.Time, notices []job.Notice, armed job.Buckets) (loud job.Buckets) {
	l.fade(now)
	told := 0
	for _, n := range notices {
		one := &l.buckets[n.Job.Bucket()]
		// Items have no row to read instead, and what is busy has been let go already. What is only watched elsewhere costs
		// the same.
		if n.Kind != job.KindItem && !one.busy {
			one.heard++
			told++
		}
	}
	if l.limiter.AllowN(now, told) { // never more than half of it at once
		return none
	}
	// The writers will be faster than they were while they had to wait for one another, so only little is kept.
	kept := 0.0
	for _, b := range quietest(armed, func(b int) float64 { return l.buckets[b].heard }) {
		if kept += l.buckets[b].heard; kept > busyBudget {
			loud[b] = true
			l.changes.forget(b)
			l.buckets[b].becomeBusy(now, l.changes.cycle.Load())
		}
	}
	if loud != none {
		l.allow(busyBudget)
	}
	return loud
}

// fade halves what was heard with each window that has passed.
func (l *load) fade(now time.Time) {
	windows := now.Sub(l.halved) / window
	if windows <= 0 {
		return
	}
	l.halved = now
	for b := range l.buckets {
		l.buckets[b].heard = math.Ldexp(l.buckets[b].heard, -int(min(windows, 64)))
	}
}

// strained tells whether less is told than the budget allows.
func (l *load) strained() bool { return l.limiter.Limit() < budget }

// quietest are these buckets, the quietest first.
func quietest(of job.Buckets, rate func(b int) float64) []int {
	sorted := make([]int, 0, len(of))
	for b, in := range of {
		if in {
			sorted = append(sorted, b)
		}
	}
	slices.SortFunc(sorted, func(a, b int) int { return cmp.Compare(rate(a), rate(b)) })
	return sorted
}

func (l *loudness) becomeBusy(now time.Time, cycle int64) {
	if l.stay > 0 && now.Sub(l.since) < soon {
		l.stay = min(2*l.stay, mostBusy)
	} else {
		l.stay = leastBusy
	}
	l.busy, l.since, l.cycle, l.until = true, now, cycle, now.Add(l.stay)
}

// tellable returns which of the watched buckets are to be told: all that are not busy.
func (l *load) tellable(now time.Time, watched, armed job.Buckets) job.Buckets {
	if cycle := l.changes.cycle.Load(); now.Sub(l.reviewed) > window && cycle > l.reviewedIn+1 { // a whole one since then
		l.review(now, cycle, armed)
		l.reviewed, l.reviewedIn = now, cycle
	}
	for b := range watched {
		watched[b] = watched[b] && !l.buckets[b].busy
	}
	return watched
}

// review ends the business of the buckets that are slow again, the quietest first, as far as the budget goes. Jobs that
// change in every cycle may change any number of times meanwhile, so their buckets stay busy.
func (l *load) review(now time.Time, cycle int64, armed job.Buckets) {
	l.fade(now)
	var changes [len(job.Buckets{})]float64 // a second
	var slow job.Buckets
	told, would, left := 0.0, 0.0, false
	for b, one := range l.buckets {
		if armed[b] {
			told += one.heard
		}
		if !one.busy {
			continue
		}
		from := l.reviewed
		if one.since.After(from) {
			from = one.since
		}
		changes[b] = float64(l.changes.all[b].Load()) / now.Sub(from).Seconds()
		known := cycle > one.cycle+alwaysCycles
		slow[b] = known && l.changes.fast[b].Load() == 0 && now.After(one.until)
		if slow[b] {
			would += changes[b]
		} else {
			left = true
		}
		l.changes.forget(b)
	}
	most := float64(budget / 2)
	if left || told+would > most {
		most = busyBudget
	}
	for _, b := range quietest(slow, func(b int) float64 { return changes[b] }) {
		if told += changes[b]; told > most {
			return
		}
		one := &l.buckets[b]
		one.busy, one.since, one.heard = false, now, 0
	}
	if !left {
		l.allow(budget)
	}
}
