package bus

import (
	"sync/atomic"
	"time"

	"jobprogress/internal/job"
)

// The cycle: what is watched and not told is read again and again, as long as there is any.
const (
	// leastCycle is the time between two cycles, and most of what a viewer is behind then.
	leastCycle = 100 * time.Millisecond
	// cycleShare is how many times longer than its reads a cycle is: they take a tenth of a core of the database.
	cycleShare = 10
)

// poll begins a cycle: it has the jobs read whose changes are not told, and returns how many they are.
func (b *Bus) poll() (jobs int) {
	b.changes.nextCycle()
	jobs = b.Hub.Poll()
	if jobs > 0 {
		b.metrics.cycles.Inc()
	}
	return jobs
}

// cycle is how long one of so many jobs lasts, as far as is known by now.
func (b *Bus) cycle(jobs int) time.Duration {
	cycle := min(max(leastCycle, cycleShare*b.cost.of(jobs)), b.BackstopInterval) // by which all is read anyway
	b.metrics.cycle.Set(cycle.Seconds())
	return cycle
}

// cost is what it takes the database to read a job. While others use its processors, too, a read takes longer than it
// costs: so the quickest counts, and slowly less.
type cost struct{ job time.Duration }

const (
	// firstCost is what a job costs before that is known.
	firstCost = 10 * time.Microsecond
	// A read tells that a job costs more if it is of at least leastCounted jobs, or takes at least longCounted: else it
	// is mostly the way there and back.
	leastCounted = 100
	longCounted  = 20 * time.Millisecond
)

func (c *cost) observe(jobs int, took time.Duration) {
	one := took / time.Duration(jobs)
	if one < c.of(1) || jobs >= leastCounted || took >= longCounted {
		c.job = min(one, c.of(1)*102/100)
	}
}

func (c *cost) of(jobs int) time.Duration {
	if c.job == 0 {
		return time.Duration(jobs) * firstCost
	}
	return time.Duration(jobs) * c.job
}

// changes are what the reads of the cycle found: of jobs that were not told. The reader writes them, and the session
// reads the counts.
type changes struct {
	cycle        atomic.Int64                     // the one that has begun
	all, fast    [len(job.Buckets{})]atomic.Int64 // jobs that changed, and those of them that do in every cycle
	now, earlier map[job.ID]int                   // in how many cycles on end a job changed, until this one and the one before
}

// alwaysCycles is in how many cycles on end a job must change to be one that changes in every cycle, and may change any
// number of times meanwhile. One that changes a few times a second hardly ever does so by chance.
const alwaysCycles = 8

func (c *changes) nextCycle() {
	c.cycle.Add(1)
	c.earlier, c.now = c.now, make(map[job.ID]int)
}

func (c *changes) add(changed []job.ID) {
	for _, id := range changed {
		c.all[id.Bucket()].Add(1)
		if c.now[id] == 0 && c.earlier[id]+1 >= alwaysCycles {
			c.fast[id.Bucket()].Add(1)
		}
		if c.now != nil { // before the first cycle
			c.now[id] = c.earlier[id] + 1
		}
	}
}

// forget begins anew to count a bucket.
func (c *changes) forget(b int) {
	c.all[b].Store(0)
	c.fast[b].Store(0)
}
