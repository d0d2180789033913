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
	// budget is how many changes of rows are told in a second, and burst how many at once. A commit that notifies keeps the
	// lock for which others wait that notify, too, for some 0.4 ms with a disk: this keeps it a fifth of the time.
	budget = 500
	burst  = 100
	// These hold while any bucket is busy: then the writers are at full speed, and each notice takes half a millisecond or
	// more from them.
	busyBudget = 10
	busyBurst  = 10
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
	began            time.Time // the burst: nothing of the budget was used
	halved, reviewed time.Time
	reviewedIn       int64 // the cycle
	buckets          [len(job.Buckets{})]loudness
}

// loudness is what is known of one bucket.
type loudness struct {
	heard float64       // notices, fading: between those of a second and twice that
	burst float64       // notices since the burst began
	busy  bool          // it is read on the cycle
	since time.Time     // it is busy or is not
	cycle int64         // in which it became busy
	stay  time.Duration // it was busy at least, last time
	until time.Time     // it is busy at least
}

func (l *load) reset() {
	l.limiter = rate.NewLimiter(budget, burst)
	clear(l.buckets[:])
}

// hear counts notices. It returns which of the armed buckets have become too loud, if the budget is overdrawn.
func (l *load) hear(now time.Time, notices []job.Notice, armed job.Buckets) (loud job.Buckets) {
	l.fade(now)
	if l.limiter.TokensAt(now) >= float64(l.limiter.Burst()) {
		l.began = now
		for b := range l.buckets {
			l.buckets[b].burst = 0
		}
	}
	told := 0
	for _, n := range notices {
		one := &l.buckets[n.Job.Bucket()]
		// Items have no row to read instead, and what is busy has been let go already. What is only watched elsewhere costs
		// the same.
		if n.Kind != job.KindItem && !one.busy {
			one.heard++
			one.burst++
			told++
		}
	}
	if l.limiter.AllowN(now, told) {
		return none
	}
	// If it goes on like this, no more than the busy budget is to be told. The writers will be faster even, for they had to
	// wait for one another.
	room := busyBudget * max(now.Sub(l.began), leastCycle).Seconds()
	heard := func(b int) float64 { return l.buckets[b].burst }
	least := unseen(armed, heard)
	likely := func(b int) float64 { return max(heard(b), least) }
	for _, b := range quietest(armed, likely) {
		if room -= likely(b); room < 0 {
			loud[b] = true
			l.changes.forget(b)
			l.buckets[b].becomeBusy(now, l.changes.cycle.Load())
		}
	}
	if loud != none && !l.strained() {
		l.limiter = rate.NewLimiter(busyBudget, busyBurst)
	}
	return loud
}

// unseen estimates how often it happened to each of the buckets in truth to which it did not happen yet: by Good and
// Turing, to all of them together as often as to those to which it happened once. It is two deviations less, for it is no
// news that it happened once to one of many.
func unseen(of job.Buckets, times func(b int) float64) float64 {
	never, once := 0.0, 0.0
	for b, in := range of {
		switch {
		case in && times(b) == 0:
			never++
		case in && times(b) <= 1:
			once++
		}
	}
	return max(once-2*math.Sqrt(once), 0) / max(never, 1)
}

// fade halves what was heard with each window that has passed, and a burst that lasts.
func (l *load) fade(now time.Time) {
	windows := now.Sub(l.halved) / window
	if windows <= 0 {
		return
	}
	l.halved = now
	long := now.Sub(l.began) > 2*window // else it would leave more and more room
	if long {
		l.began = now.Add(-now.Sub(l.began) / 2)
	}
	for b := range l.buckets {
		one := &l.buckets[b]
		one.heard = math.Ldexp(one.heard, -int(min(windows, 64)))
		if long {
			one.burst /= 2
		}
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
	var times, changes [len(job.Buckets{})]float64 // since the last review, and a second
	var slow job.Buckets
	told, would, left := 0.0, 0.0, false
	for b, one := range l.buckets {
		if armed[b] {
			told += one.heard
		}
		if !one.busy {
			continue
		}
		known := cycle > one.cycle+alwaysCycles
		slow[b] = known && l.changes.fast[b].Load() == 0 && now.After(one.until)
		left = left || !slow[b]
		times[b] = float64(l.changes.all[b].Load())
		l.changes.forget(b)
	}
	least := unseen(slow, func(b int) float64 { return times[b] })
	for b, in := range slow {
		if in {
			changes[b] = max(times[b], least) / now.Sub(later(l.reviewed, l.buckets[b].since)).Seconds()
			would += changes[b]
		}
	}
	most := float64(budget / 2)
	if left || told+would > most {
		most = busyBudget / 2
	}
	for _, b := range quietest(slow, func(b int) float64 { return changes[b] }) {
		if told += changes[b]; told > most && changes[b] > 0 {
			return
		}
		one := &l.buckets[b]
		one.busy, one.since, one.heard, one.burst = false, now, 0, 0
	}
	if !left && l.strained() {
		l.limiter = rate.NewLimiter(budget, burst)
	}
}
