package bus

import "time"

// The cycle: what is watched and not told is read again and again, as long as there is any.
const (
	// leastCycle is the time between two cycles, and most of what a viewer is behind then.
	leastCycle = 100 * time.Millisecond
	// cycleShare is how many times longer than its reads a cycle is: they take a tenth of a core of the database.
	cycleShare = 10
)

// poll has the jobs read whose changes are not told, and returns how long the cycle lasts.
func (b *Bus) poll() time.Duration {
	jobs := b.Hub.Poll()
	if jobs > 0 {
		b.metrics.cycles.Inc()
	}
	cycle := max(leastCycle, cycleShare*b.cost.of(jobs))
	b.metrics.cycle.Set(cycle.Seconds())
	return cycle
}

// cost is what it takes the database to read a job. While others use its processors, too, a read takes longer than it
// costs: so the quickest counts, and slowly less.
type cost struct{ job time.Duration }

const (
	// firstCost is what a job costs before that is known.
	firstCost = 10 * time.Microsecond
	// leastCounted is how many jobs a read must be of to tell.
	leastCounted = 100
)

func (c *cost) observe(jobs int, took time.Duration) {
	if jobs >= leastCounted {
		c.job = min(took/time.Duration(jobs), c.of(1)*102/100)
	}
}

func (c *cost) of(jobs int) time.Duration {
	if c.job == 0 {
		return time.Duration(jobs) * firstCost
	}
	return time.Duration(jobs) * c.job
}
