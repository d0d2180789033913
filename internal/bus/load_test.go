package bus

import (
	"fmt"
	"testing"
	"time"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// crowd says how many changes a second there are of each bucket's one job.
type crowd map[byte]float64

// live lets some seconds pass, in steps of a cycle. Armed buckets are heard, the others read.
func (c crowd) live(l *load, now *time.Time, armed *job.Buckets, seconds float64) {
	var watched hub.Jobs
	for b := range c {
		watched[b] = 1
	}
	owed := make(map[byte]float64)
	for b := range c {
		owed[b] = float64(b) / 256 // not all at once
	}
	for end := now.Add(time.Duration(seconds * float64(time.Second))); now.Before(end); *now = now.Add(leastCycle) {
		*armed = l.tellable(*now, watched)
		for b, rate := range c {
			owed[b] += rate * leastCycle.Seconds()
			n := int(owed[b])
			owed[b] -= float64(n)
			if !armed[b] {
				l.changed[b].Add(int64(min(n, 1)))
				continue
			}
			for range n {
				id := job.ID(fmt.Sprintf("00000000-0000-4000-8000-0000000000%02x", b))
				loud := l.hear(*now, []job.Notice{{Kind: job.KindState, Job: id}}, *armed)
				*armed = armed.Without(loud)
			}
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
		"everybody fast":              {everybody(50), 0, 1}, // whose 50 are what is kept
		"one fast":                    {crowd{7: 5000}, 0, 0},
		"one fast, few slow":          {with(crowd{1: 3, 2: 3, 3: 3}, 7, 5000), 3, 3},
		"as fast as the budget":       {crowd{7: budget - 100}, 1, 1},
		"a crowd within its budget":   {with(everybody(1), 7, 100), 256, 256},
		"a crowd that is overdrawing": {everybody(4), 0, busyBudget / 4},
	} {
		t.Run(name, func(t *testing.T) {
			l := new(load)
			l.reset()
			now := time.Unix(1e9, 0)
			var armed job.Buckets
			tt.crowd.live(l, &now, &armed, 10)
			if n := armed.Len(); n < tt.least || n > tt.most {
				t.Errorf("%d buckets are armed, want %d to %d", n, tt.least, tt.most)
			}
			// When all are slow again, all are told again.
			for b := range tt.crowd {
				tt.crowd[b] = min(tt.crowd[b], 0.5)
			}
			tt.crowd.live(l, &now, &armed, 2*mostBusy.Seconds())
			if n := armed.Len(); n != len(tt.crowd) {
				t.Errorf("%d buckets are armed after all are slow, want %d", n, len(tt.crowd))
			}
		})
	}
}

// A bucket that is told again and again becomes too loud is tried less and less often.
func TestLoadDoesNotFlap(t *testing.T) {
	l := new(load)
	l.reset()
	now := time.Unix(1e9, 0)
	var armed job.Buckets
	switches, before := 0, job.Buckets{}
	for range 600 { // seconds in which the bucket's other jobs are loud and the one that is read is quiet
		crowd{7: 2000}.live(l, &now, &armed, 0.1)
		l.changed[7].Store(0)
		if armed != before {
			switches++
		}
		before = armed
	}
	if switches > 40 {
		t.Errorf("%d switches in a minute", switches)
	}
	if switches == 0 {
		t.Error("it was never tried again")
	}
}

func TestItemsDoNotCount(t *testing.T) {
	l := new(load)
	l.reset()
	var armed job.Buckets
	armed[0] = true
	for range 10 * budget {
		if loud := l.hear(time.Unix(1e9, 0), []job.Notice{{Kind: job.KindItem, Job: "00000000-0000-4000-8000-000000000000"}}, armed); loud != (job.Buckets{}) {
			t.Fatal("items, which have no row to read, made it busy")
		}
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
	c.observe(10, time.Second) // too few to tell
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
}
