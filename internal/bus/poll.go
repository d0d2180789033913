package bus

import (
	"time"

	"jobprogress/internal/job"
)

// leastInterval is the least time between two polls, and most of what the viewers of a polled job are behind.
const leastInterval = 100 * time.Millisecond

// pollShare is how many times longer than its reads a poll interval is: they take a tenth of a core of the database.
const pollShare = 10

// poller says when to poll, and what came of it. It belongs to the reader.
type poller struct {
	longest time.Duration // poll interval
	cost    time.Duration // of reading one job
	jobs    int           // in the last poll
	began   time.Time     // the last poll

	read    job.Buckets             // since then
	changed [len(job.Buckets{})]int // jobs, since then
}

// interval is the time between two polls.
func (p *poller) interval() time.Duration {
	return min(max(leastInterval, pollShare*time.Duration(p.jobs)*p.cost), p.longest)
}

// due reports whether it is time to poll: at this tick rather than the next.
func (p *poller) due(now time.Time) bool { return now.Sub(p.began) > p.interval()-tickInterval/2 }

// begin begins a poll of so many jobs.
func (p *poller) begin(now time.Time, jobs int) {
	p.began, p.jobs, p.read, p.changed = now, jobs, job.Buckets{}, [len(job.Buckets{})]int{}
}

const (
	// A read shows what a job costs if it is of at least leastCounted jobs, or takes at least longCounted: else it is mostly
	// the way there and back.
	leastCounted = 100
	longCounted  = 20 * time.Millisecond
)

// observe takes in a read. While others use the database's processors, too, it takes longer than it costs: so the
// quickest counts, and slowly less.
func (p *poller) observe(requests []job.Request, changed []byte, took time.Duration) {
	for _, r := range requests {
		p.read[r.Bucket] = true
	}
	for _, bucket := range changed {
		p.changed[bucket]++
	}
	if len(requests) < leastCounted && took < longCounted {
		return
	}
	one := took / time.Duration(len(requests))
	if p.cost == 0 || one < p.cost {
		p.cost = one
	} else {
		p.cost = min(one, p.cost*102/100+1)
	}
}
