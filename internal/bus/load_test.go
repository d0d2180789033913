package bus

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"jobprogress/internal/job"
)

// crowd says how many changes a second there are of each bucket's one job.
type crowd map[byte]float64

// crowded is a load under a crowd.
type crowded struct {
	*load
	now   time.Time
	armed job.Buckets
}

func newCrowded() *crowded {
	c := &crowded{load: &load{changes: new(changes)}, now: time.Unix(1e9, 0)}
	c.reset()
	return c
}

func jobIn(b byte) job.ID { return job.ID(fmt.Sprintf("00000000-0000-4000-8000-0000000000%02x", b)) }

// changed is what a cycle does: armed buckets are heard, the others read.
func (c *crowded) changed(b byte, times int) {
	if !c.armed[b] {
		if times > 0 {
			c.changes.add([]job.ID{jobIn(b)})
		}
		return
	}
	for range times {
		c.armed = c.armed.Without(c.hear(c.now, []job.Notice{{Kind: job.KindState, Job: jobIn(b)}}, c.armed))
	}
}

// live lets some seconds pass, in steps of a cycle.
func (c *crowded) live(crowd crowd, seconds float64) {
	var watched job.Buckets
	owed := make(map[byte]float64)
	for b := range crowd {
		watched[b] = true
		owed[b] = float64(b) / 256 // not all at once
	}
	for end := c.now.Add(time.Duration(seconds * float64(time.Second))); c.now.Before(end); c.now = c.now.Add(leastCycle) {
		c.changes.nextCycle()
		c.armed = c.tellable(c.now, watched, c.armed)
		for b, rate := range crowd {
			owed[b] += rate * leastCycle.Seconds()
			n := int(owed[b])
			owed[b] -= float64(n)
			c.changed(b, n)
		}
	}
}

func TestLoad(t *testing.T) {
	everybody := func(rate float64) crowd {
		c := make(crowd)
		for b := range 256 {
			c[byte(b)] = rate
		}
		return c
	}
	with := func(c crowd, b byte, rate float64) crowd { c[b] = rate; return c }
	for name, tt := range map[string]struct {
		crowd       crowd
		least, most int // buckets armed after ten seconds
	}{
		"everybody slow":              {everybody(1), 256, 256},
		"everybody fast":              {everybody(50), 0, 0},
		"one fast":                    {crowd{7: 5000}, 0, 0},
		"one fast, few slow":          {with(crowd{1: 3, 2: 3, 3: 3}, 7, 5000), 3, 3},
		"as fast as the budget":       {crowd{7: budget - 100}, 1, 1},
		"a crowd within its budget":   {with(everybody(1), 7, 100), 256, 256},
		"a crowd that is overdrawing": {everybody(4), 0, busyBudget},
		"few, too fast for little":    {crowd{7: 60, 8: 60, 9: 60}, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowded()
			c.live(tt.crowd, 10)
			if n := c.armed.Len(); n < tt.least || n > tt.most {
				t.Errorf("%d buckets are armed, want %d to %d", n, tt.least, tt.most)
			}
			// When all are slow again, all are told again.
			for b := range tt.crowd {
				tt.crowd[b] = min(tt.crowd[b], 0.5)
			}
			c.live(tt.crowd, 2*mostBusy.Seconds())
			if n := c.armed.Len(); n != len(tt.crowd) {
				t.Errorf("%d buckets are armed after all are slow, want %d", n, len(tt.crowd))
			}
		})
	}
}

// A bucket that is told again and again becomes too loud is tried less and less often.
func TestLoadDoesNotFlap(t *testing.T) {
	c := newCrowded()
	tries := 0
	for range 600 { // a minute in which what is loud comes in bursts, and what is read is quiet
		c.live(crowd{7: 0}, 0.1)
		if c.armed[7] {
			tries++
			c.changed(7, 2*burst)
		}
	}
	if tries > 20 {
		t.Errorf("%d tries in a minute", tries)
	}
	if tries < 2 {
		t.Error("it was never tried again")
	}
}

// A crowd that is fast all together is let go before much more than a burst is told, also those of it that
// were not heard by then.
func TestFastCrowdIsLetGoAtOnce(t *testing.T) {
	c := newCrowded()
	c.armed = every
	random := rand.New(rand.NewPCG(1, 2))
	told := 0
	for range 5 * budget { // 2,000 a second
		c.now = c.now.Add(500 * time.Microsecond)
		b := byte(random.IntN(256))
		if c.armed[b] {
			told++
		}
		c.changed(b, 1)
	}
	if most := 2 * burst; told > most {
		t.Errorf("%d changes are told, want %d at most", told, most)
	}
}

// A job that was changed very often at once, and is else changed a few times a second, is told again.
func TestBurstPasses(t *testing.T) {
	for _, rate := range []float64{0, 1, 5} {
		c := newCrowded()
		c.live(crowd{7: rate}, 1)
		c.changed(7, 10*budget)
		if c.armed[7] {
			t.Fatal("a burst is told")
		}
		if c.live(crowd{7: rate}, 3); !c.armed[7] {
			t.Errorf("with %g changes a second it is not told after a burst", rate)
		}
	}
}

// A crowd of jobs that change a few times a second each, whenever they do, is told again after one bulk update.
func TestCrowdIsToldAgainAfterABurst(t *testing.T) {
	for jobs, rate := range map[int]float64{50: 4, 30: 5, 100: 2, 200: 1} {
		random := rand.New(rand.NewPCG(1, 2))
		c := newCrowded()
		watched := job.Buckets{}
		for b := range jobs {
			watched[b] = true
		}
		live := func(seconds int) {
			for range seconds * int(time.Second/leastCycle) {
				c.now = c.now.Add(leastCycle)
				c.changes.nextCycle()
				c.armed = c.tellable(c.now, watched, c.armed)
				for b := range jobs {
					n := 0
					for at := random.ExpFloat64(); at < rate*leastCycle.Seconds(); at += random.ExpFloat64() {
						n++
					}
					c.changed(byte(b), n)
				}
			}
		}
		live(5)
		before := c.armed.Len()
		var bulk []job.Notice
		for i := range 2 * burst {
			bulk = append(bulk, job.Notice{Kind: job.KindState, Job: jobIn(byte(i % jobs))})
		}
		c.armed = c.armed.Without(c.hear(c.now, bulk, c.armed))
		after := c.armed.Len()
		live(10)
		if n := c.armed.Len(); before != jobs || after > busyBudget || n != jobs || c.strained() {
			t.Errorf("%d jobs at %g a second: %d buckets are armed, %d after a burst, %d ten seconds later", jobs, rate, before, after, n)
		}
	}
}

// Notices that another server asked for keep the budget overdrawn. That neither gives quiet buckets more and more room,
// nor counts an old burst against them.
func TestForeignNoticesDoNotMatterForLong(t *testing.T) {
	c := newCrowded()
	watched := job.Buckets{6: true, 7: true}
	told := 0
	live := func(seconds, seven int) {
		for i := range seconds * 1000 {
			c.now = c.now.Add(time.Millisecond)
			if i%100 == 0 {
				c.changes.nextCycle()
				c.armed = c.tellable(c.now, watched, c.armed)
				c.changed(6, 5*burst) // for good
			}
			if i%20 == 0 {
				c.armed = c.armed.Without(c.hear(c.now, []job.Notice{{Kind: job.KindState, Job: jobIn(2)}}, c.armed))
			}
			if seven > 0 && i%(1000/seven) == 0 {
				if c.armed[7] {
					told++
				}
				c.changed(7, 1)
			}
		}
	}
	live(600, 0)
	if !c.armed[7] {
		t.Error("what is quiet is not told")
	}
	if live(10, 200); told > 2*burst {
		t.Errorf("%d changes of what had been quiet are told", told)
	}
	live(2*int(mostBusy.Seconds()), 0)
	armed := 0
	for range 60 {
		if live(1, 0); c.armed[7] {
			armed++
		}
	}
	if armed < 58 {
		t.Errorf("what is quiet again is told in %d of 60 seconds", armed)
	}
}

// Nor does it hide among others that are slow, or behind a cycle that is long.
func TestJobThatChangesInEveryCycleIsNotTold(t *testing.T) {
	for _, seconds := range []float64{0.1, 1, 4} {
		c := newCrowded()
		c.armed = c.tellable(c.now, every, c.armed)
		c.changed(7, 10*budget)
		for at := 0.0; at < 60; at += seconds {
			c.changes.nextCycle()
			for elapsed := 0.0; elapsed < seconds; elapsed += 0.1 {
				c.now = c.now.Add(leastCycle)
				c.armed = c.tellable(c.now, every, c.armed)
			}
			if c.armed[7] {
				t.Errorf("with a cycle of %g s it is told again after %g s", seconds, at)
				break
			}
			c.changes.add([]job.ID{jobIn(7)})
		}
	}
}

func TestItemsDoNotCount(t *testing.T) {
	c := newCrowded()
	c.armed[0] = true
	for range 10 * budget {
		if loud := c.hear(c.now, []job.Notice{{Kind: job.KindItem, Job: jobIn(0)}}, c.armed); loud != none {
			t.Fatal("items, which have no row to read, made it busy")
		}
	}
}

// All that is notified keeps the writers of the database waiting, whoever asked for it.
func TestWhatIsWatchedElsewhereCounts(t *testing.T) {
	c := newCrowded()
	c.armed[0], c.armed[1] = true, true
	for range 100 {
		c.changed(0, 1)
	}
	for range budget {
		loud := c.hear(c.now, []job.Notice{{Kind: job.KindState, Job: jobIn(2)}}, c.armed)
		if loud[1] || loud[2] {
			t.Fatal("what is quiet, or not armed, is let go")
		}
		c.armed = c.armed.Without(loud)
	}
	if c.armed[0] {
		t.Error("the loudest is told still")
	}
}

// Nor does it keep from being told what has become quiet here.
func TestWhatIsWatchedElsewhereDoesNotKeepItBusy(t *testing.T) {
	c := newCrowded()
	c.live(crowd{7: 1}, 1)
	c.changed(7, 10*budget)
	for range 20 { // seconds
		for range 300 {
			c.hear(c.now, []job.Notice{{Kind: job.KindState, Job: jobIn(2)}}, c.armed)
		}
		c.live(crowd{7: 1}, 1)
	}
	if !c.armed[7] || c.strained() {
		t.Errorf("told: %v, with little of the budget left: %v", c.armed[7], c.strained())
	}
}

// What was heard of a bucket fades also when nothing is heard any more.
func TestSilenceMakesRoom(t *testing.T) {
	c := newCrowded()
	loud := crowd{5: busyBudget - 2, 6: 5000, 7: 1}
	c.live(loud, 4)
	c.changed(7, 10*budget)
	loud[5] = 0
	if c.armed[6] || c.armed[7] || !c.armed[5] {
		t.Fatalf("told are %v %v %v", c.armed[5], c.armed[6], c.armed[7])
	}
	c.live(loud, 10)
	if !c.armed[7] {
		t.Error("what is quiet is not told beside what is loud")
	}
}

// What has become silent is told again, though what is told already takes all of the little budget.
func TestSilenceCostsNothing(t *testing.T) {
	c := newCrowded()
	loud := crowd{5: busyBudget - 2, 6: 5000, 7: 0}
	c.live(loud, 4)
	c.changed(7, 10*budget)
	if c.live(loud, 10); !c.armed[7] {
		t.Error("what is silent is not told")
	}
}

// The quickest of the reads counts, and slowly less.
func TestCost(t *testing.T) {
	var c cost
	if got := c.of(1000); got != 1000*firstCost {
		t.Errorf("%s before anything is known", got)
	}
	c.observe(1000, 50*time.Millisecond)
	c.observe(1000, 5*time.Millisecond)
	c.observe(10, 10*time.Millisecond) // mostly the way there and back
	for range 10 {
		c.observe(1000, 100*time.Millisecond) // others are at work
	}
	if got := c.of(10_000); got < 50*time.Millisecond || got > 65*time.Millisecond {
		t.Errorf("%s for 10,000 jobs", got)
	}
	for range 1000 {
		c.observe(1000, 100*time.Millisecond) // for good
	}
	if got := c.of(1000); got != 100*time.Millisecond {
		t.Errorf("%s when all reads take 100ms", got)
	}
	for range 1000 {
		c.observe(10, 100*time.Millisecond) // each is large
	}
	if got := c.of(10); got != 100*time.Millisecond {
		t.Errorf("%s when a read of ten takes 100ms", got)
	}
	c.observe(50, time.Millisecond)
	if got := c.of(50); got != time.Millisecond {
		t.Errorf("%s after a read of as many took 1ms", got)
	}
}
