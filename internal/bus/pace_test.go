package bus

import (
	"testing"
	"time"

	"jobprogress/internal/job"
)

type notified = [len(job.Buckets{})]int

// paced is a pace whose clock goes tick by tick.
type paced struct {
	*pace
	now  time.Time
	held job.Buckets
}

func newPaced() *paced {
	now := time.Unix(0, 0)
	return &paced{newPace(now), now, job.Buckets{}.Complement()}
}

func (p *paced) tick(h notified) job.Buckets {
	p.now = p.now.Add(100 * time.Millisecond)
	return p.pace.tick(p.now, h, p.held)
}

// polls is a time of polls in which jobs of a bucket had changed in every nth.
func (p *paced) polls(n, every int, topics job.Buckets) {
	for i := range n {
		p.tick(notified{})
		read, changed := topics, notified{}
		if i%every == 0 {
			changed[1] = 1
		}
		p.observe(read, changed)
		p.calm(p.now, topics)
	}
}

// quiet is a poll that finds no change.
func (p *paced) quiet(topics job.Buckets) {
	p.tick(notified{})
	p.observe(topics, notified{})
	p.calm(p.now, topics)
}

func TestWithinTheBudgetNothingIsReleased(t *testing.T) {
	p := newPaced()
	for range 1000 { // 450 a second of 500
		if release := p.tick(notified{1: 25, 2: 20}); release != (job.Buckets{}) {
			t.Fatalf("released %v", release)
		}
	}
}

func TestOverBudgetTheLoudestIsReleasedAndTheQuietOneStays(t *testing.T) {
	p := newPaced()
	for i := 0; p.polled == (job.Buckets{}); i++ {
		if i == 10 {
			t.Fatal("nothing is released")
		}
		p.tick(notified{1: 100, 2: 1})
	}
	if p.polled != (job.Buckets{1: true}) {
		t.Errorf("polled are %v", p.polled)
	}
}

func TestAllAsLoudAsOneAnotherAreReleasedWithinASecond(t *testing.T) {
	p := newPaced()
	for range 10 {
		var h notified
		for b := range h {
			if !p.polled[b] {
				h[b] = 3 // 30 a second of each
			}
		}
		p.tick(h)
	}
	if n := p.polled.Len(); n < 255 {
		t.Errorf("%d are polled", n)
	}
}

// Behind slow commits, or where writers wait for one another, a notification costs more.
func TestBudgetIsAShareOfTheLocksTime(t *testing.T) {
	p := newPaced()
	for range 3 {
		p.probed(5 * time.Millisecond)
	}
	if got := p.budget(); got < 39 || got > 41 {
		t.Errorf("behind commits of 5 ms the budget is %v", got)
	}
	p.probed(300 * time.Microsecond)
	if got := p.budget(); got != 500 {
		t.Errorf("with one of 0.3 ms it is %v", got)
	}
}

func TestPolledBucketIsNotifiedAgainWhenItHasBecomeSlow(t *testing.T) {
	p := newPaced()
	p.tick(notified{1: 1000})
	topics := job.Buckets{1: true}
	p.polls(50, 2, topics) // changes in every second poll
	if !p.polled[1] {
		t.Fatal("it is notified though it is fast")
	}
	p.polls(2*window, 8, topics) // a change a second
	if p.polled[1] {
		t.Error("it is polled though it is slow")
	}
}

func TestBucketThatWasNotifiedTooEarlyIsPolledForLonger(t *testing.T) {
	p := newPaced()
	var took []int
	for range 6 {
		p.tick(notified{1: 1000})
		n := 0
		for ; p.polled[1]; n++ {
			p.quiet(job.Buckets{1: true})
		}
		took = append(took, n)
	}
	for i := 1; i < 4; i++ {
		if took[i] <= took[i-1] {
			t.Errorf("polled for %v ticks", took)
		}
	}
	if most := int(mostPolled/(100*time.Millisecond)) + 2*window; took[5] > most {
		t.Errorf("polled for %v ticks, at most %d", took, most)
	}
}

func TestWhatNobodyWatchesAnyMoreIsForgotten(t *testing.T) {
	p := newPaced()
	p.tick(notified{1: 1000})
	p.calm(p.now, job.Buckets{2: true})
	if p.polled != (job.Buckets{}) {
		t.Error("it is polled still")
	}
}

// What is quiet comes first, and only as far as there is room while something else is fast.
func TestQuietestComesBackFirst(t *testing.T) {
	p := newPaced()
	p.tick(notified{1: 1000, 2: 1000, 3: 1000})
	topics := job.Buckets{1: true, 2: true, 3: true}
	for i := range 40 {
		p.tick(notified{})
		changed := notified{1: 1}
		if i%8 == 0 {
			changed[2], changed[3] = 40, 1 // jobs of the bucket
		}
		p.observe(topics, changed)
		p.calm(p.now, topics)
	}
	if p.polled != (job.Buckets{1: true, 2: true}) {
		t.Errorf("polled are %v", p.polled)
	}
}

func TestPollsTakeATenthOfTheTime(t *testing.T) {
	p := poller{longest: 15 * time.Second}
	requests := make([]job.Request, 1000)
	for i := range requests {
		requests[i].ID = "00000000-0000-4000-8000-000000000000"
	}
	now := time.Unix(0, 0)
	p.observe(requests, nil, 50*time.Millisecond)
	p.begin(now, 1000)
	if got := p.interval(); got != 500*time.Millisecond {
		t.Errorf("interval %s", got)
	}
	if p.due(now.Add(400*time.Millisecond)) || !p.due(now.Add(490*time.Millisecond)) {
		t.Error("not due after its interval")
	}
	p.begin(now, 10)
	if got := p.interval(); got != leastInterval {
		t.Errorf("interval of few jobs %s", got)
	}
	for range 1000 { // a busy machine does not count at once
		p.observe(requests, nil, 80*time.Millisecond)
	}
	p.begin(now, 1000)
	if got := p.interval(); got < 790*time.Millisecond || got > 810*time.Millisecond {
		t.Errorf("interval %s after reads have become slow", got)
	}
}
