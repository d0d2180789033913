package bus

import (
	"cmp"
	"slices"
	"time"

	"jobprogress/internal/job"
)

// Slow work is notified, and what changes too fast is polled, as network drivers switch from interrupts to polling.
const (
	// lockShare is the share of the time for which notifying commits may hold the lock for which they wait for one another.
	lockShare = 0.2
	// burst is how many seconds of the budget may be used at once.
	burst = 0.2
	// rest is what may go on to be notified once the budget is exceeded, as a share of it. Then the writers are at full
	// speed, and each notification takes more from them than the lock.
	rest = 0.02
	// If at least many buckets, and at least a quarter of all that are notified, have notified lately, all of them count as fast.
	most, many = 4, 16
	// window is how many polls decide whether a bucket has become slow, and slowPolls in how many of them it may have
	// changed.
	window, slowPolls = 8, 2
	// leastHold is what a commit takes on a fast disk, and with the way there and back.
	leastHold = 400 * time.Microsecond
	// A bucket is polled for at least leastPolled, and twice as long each time that it was over budget again within soon,
	// up to mostPolled: to find out costs writers a burst of notifications.
	leastPolled = time.Second
	mostPolled  = 16 * time.Second
	soon        = 30 * time.Second
)

// pace decides which buckets are too fast to be notified. It belongs to the reader.
type pace struct {
	probes [3]time.Duration // the last ones' commits
	tokens float64          // notifications that the budget has left
	at     time.Time        // of the last tick

	polled  job.Buckets // because they were over budget
	buckets [len(job.Buckets{})]speed
}

// speed is what is known of one bucket.
type speed struct {
	rate    float64       // notifications a second, a fading average; while polled, an estimate from the polls
	polls   int           // in the present window
	changed int           // polls of the window that found a change
	jobs    int           // changed jobs that those polls found
	began   time.Time     // when the window began
	since   time.Time     // when it was last switched between notified and polled
	stay    time.Duration // how long it had to be polled, the last time
}

func newPace(now time.Time) *pace { return &pace{at: now} }

// probed takes in how long the commit of a probe took: as long as it held the lock, and waited for it. That is the share
// of the lock's time of a notification, and where writers wait for one another, more.
func (p *pace) probed(took time.Duration) {
	copy(p.probes[1:], p.probes[:])
	p.probes[0] = took
}

// hold is how long a commit holds the lock: the shortest of the last probes, because one may have waited for something else.
func (p *pace) hold() time.Duration {
	hold := leastHold
	if least := slices.Min(p.probes[:]); least > hold { // 0 as long as there are too few
		hold = least
	}
	return hold
}

// budget is how many notifications a second are allowed.
func (p *pace) budget() float64 { return lockShare / p.hold().Seconds() }

// tick takes in the notifications since the last tick, and returns the buckets to release: the fastest, if the budget is
// exceeded.
func (p *pace) tick(now time.Time, counts [len(job.Buckets{})]int, held job.Buckets) (release job.Buckets) {
	elapsed := now.Sub(p.at).Seconds()
	p.at = now
	if elapsed <= 0 {
		return release
	}
	limit := p.budget()
	if p.polled.Len() > 0 {
		limit *= rest
	}
	total := 0
	for b, n := range counts {
		if !p.polled[b] { // the rest are on their way, or other servers'
			fade := min(elapsed, 1)
			p.buckets[b].rate += (float64(n)/elapsed - p.buckets[b].rate) * fade
			total += n
		}
	}
	p.tokens = min(p.tokens+limit*elapsed-float64(total), max(burst*limit, 2))
	if p.tokens >= 0 {
		return release
	}
	p.tokens = 0
	fast := sorted(func(b int) bool { return held[b] && p.buckets[b].rate > 0 }, func(b int) float64 { return p.buckets[b].rate })
	if len(fast) >= many && len(fast)*most > held.Len() { // so many that the others are as fast, and had no turn yet
		release = held
	}
	room := rest * p.budget()
	for _, b := range fast {
		room -= p.buckets[b].rate
		release[b] = room < 0
	}
	for b, in := range release {
		if in {
			p.buckets[b].poll(now)
		}
	}
	p.polled = p.polled.Union(release)
	return release
}

// poll begins to poll the bucket.
func (l *speed) poll(now time.Time) {
	stay := leastPolled
	if l.stay > 0 && now.Sub(l.since) < soon {
		stay = min(2*l.stay, mostPolled)
	}
	*l = speed{since: now, began: now, stay: stay}
}

// observe takes in a poll: the buckets that were read, and how many jobs of each had changed.
func (p *pace) observe(read job.Buckets, changed [len(job.Buckets{})]int) {
	for b, in := range read {
		if in && p.polled[b] {
			l := &p.buckets[b]
			l.polls++
			l.jobs += changed[b]
			if changed[b] > 0 {
				l.changed++
			}
		}
	}
}

// calm ends the polling of buckets that have become slow, the slowest first, as far as half the budget goes. Buckets
// without a topic are forgotten.
func (p *pace) calm(now time.Time, topics job.Buckets) {
	p.polled = p.polled.Without(topics.Complement())
	if p.polled == (job.Buckets{}) {
		return
	}
	room, notified := p.budget()/2, 0.0
	var slow job.Buckets
	for b := range p.buckets {
		l := &p.buckets[b]
		switch {
		case !p.polled[b]:
			notified += l.rate
		case l.polls >= window:
			slow[b] = l.changed <= slowPolls && now.Sub(l.since) >= l.stay
			l.rate = float64(l.jobs) / now.Sub(l.began).Seconds()
			l.polls, l.changed, l.jobs, l.began = 0, 0, 0, now
		}
	}
	if p.polled != slow {
		room *= rest // as in tick: what stays polled is at full speed
	}
	room -= notified
	for _, b := range sorted(func(b int) bool { return slow[b] }, func(b int) float64 { return p.buckets[b].rate }) {
		if room -= p.buckets[b].rate; room < 0 {
			return
		}
		p.polled[b] = false
		p.buckets[b].since = now
	}
}

// sorted are the buckets of a kind, the slowest first.
func sorted(in func(b int) bool, by func(b int) float64) (buckets []int) {
	for b := range len(job.Buckets{}) {
		if in(b) {
			buckets = append(buckets, b)
		}
	}
	slices.SortFunc(buckets, func(a, b int) int { return cmp.Compare(by(a), by(b)) })
	return buckets
}
