package hub

import (
	"errors"
	"fmt"
	"testing"

	"jobprogress/internal/job"
)

// wanted are how many jobs are to be read.
func wanted(h *Hub) int { return len(h.Feed().Begin(10)) }

func TestOnlyWatchedTopicsThatAreNotNotifiedArePolled(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1)))
	if n := h.Feed().Poll(); n != 0 || wanted(h) != 0 {
		t.Error("what is notified is polled")
	}
	h.Feed().Release(job.Buckets{0: true}) // jobA is in it
	if n := h.Feed().Poll(); n != 1 || wanted(h) != 1 {
		t.Error("what is released is not polled")
	}
	h.Feed().Finish([]job.Snapshot{row(running(2))}, "2:2:", job.Buckets{})
	if n := h.Feed().Poll(); n != 1 || wanted(h) != 1 {
		t.Error("it is not polled until a read from which on it is notified")
	}
	h.Feed().Finish([]job.Snapshot{row(running(2))}, "3:3:", every)
	if n := h.Feed().Poll(); n != 0 {
		t.Error("it is polled still")
	}
	h.Feed().Release(every)
	w.Close()
	if n := h.Feed().Poll(); n != 0 {
		t.Error("it is polled though nobody watches")
	}
}

func TestPolledTopicIsReadForEachNewSubscriber(t *testing.T) {
	h := liveHub()
	subscribe(t, h, row(running(1)))
	h.Feed().Release(every)
	s, awaited, _ := h.join(jobA)
	defer s.Close()
	if awaited == nil {
		t.Error("a topic is trusted whose changes are not notified")
	}
}

func TestJobNamedWhileItsReadIsUnderWayIsReadOnceMore(t *testing.T) {
	h := liveHub()
	subscribe(t, h, row(running(1)))
	h.Feed().Want(jobA)
	h.Feed().Begin(10)
	h.Feed().Want(jobA)
	h.Feed().Finish([]job.Snapshot{row(running(2))}, "2:2:", every)
	if wanted(h) != 1 {
		t.Error("it is not read again")
	}
}

func TestNotificationOfAJobThatNobodyWatches(t *testing.T) {
	h := liveHub()
	if h.Feed().Want(jobA) || wanted(h) != 0 {
		t.Error("it is read")
	}
}

// A change that the backstop finds in a notified topic is counted, unless its notification comes after all.
func TestChangesThatNobodyNotifiedAreCounted(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(h *Hub)
		want int
	}{
		"found by the backstop": {func(h *Hub) {
			h.Feed().Backstop()
			h.Feed().Begin(10)
			h.Feed().Finish([]job.Snapshot{row(running(2))}, "2:2:", every)
		}, 1},
		"notified": {func(h *Hub) { change(h, row(running(2))) }, 0},
		"notified a moment after the read": {func(h *Hub) {
			h.Feed().Backstop()
			h.Feed().Begin(10)
			h.Feed().Finish([]job.Snapshot{row(running(2))}, "2:2:", every)
			h.Feed().Want(jobA)
		}, 0},
		"polled": {func(h *Hub) {
			h.Feed().Release(every)
			h.Feed().Poll()
			h.Feed().Begin(10)
			h.Feed().Finish([]job.Snapshot{row(running(2))}, "2:2:", every)
		}, 0},
		"nothing has changed": {func(h *Hub) {
			h.Feed().Backstop()
			h.Feed().Begin(10)
			h.Feed().Finish([]job.Snapshot{row(running(1))}, "2:2:", every)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := liveHub()
			subscribe(t, h, row(running(1)))
			c.do(h)
			if got := h.Feed().Backstop(); got != c.want {
				t.Errorf("%d changes, want %d", got, c.want)
			}
			if h.Feed().Backstop() != 0 {
				t.Error("it is counted twice")
			}
		})
	}
}

// others are topics that somebody waits for, besides jobA's.
func others(t *testing.T, h *Hub, n int) (reads []*read) {
	t.Helper()
	for i := range n {
		s, r, _ := h.join(job.ID(fmt.Sprintf("bbbbbbbb-0000-4000-8000-%012d", i)))
		t.Cleanup(s.Close)
		reads = append(reads, r)
	}
	return reads
}

// It may be what ended the session, or what takes so long.
func TestJobWhoseReadFailedIsReadAloneAfterTheOthers(t *testing.T) {
	h := liveHub()
	s, _, _ := h.join(jobA)
	defer s.Close()
	h.Feed().Retry(h.Feed().Begin(10))
	others(t, h, 3)
	if requests := h.Feed().Begin(10); len(requests) != 3 {
		t.Errorf("first read are %v", requests)
	}
	if requests := h.Feed().Begin(10); len(requests) != 1 || requests[0].ID != jobA {
		t.Errorf("then read are %v", requests)
	}
}

func TestThoseWhoWaitedForALostSessionWaitForTheNext(t *testing.T) {
	h := liveHub()
	s, read, _ := h.join(jobA)
	defer s.Close()
	h.Feed().Retry(h.Feed().Begin(10))
	select {
	case <-read.done:
		t.Fatal("it has an answer")
	default:
	}
	h.Feed().Resync()
	h.Feed().Begin(10)
	h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
	<-read.done
	if read.err != nil {
		t.Error(read.err)
	}
}

// Also those for jobs whose reads failed before.
func TestNobodyWaitsForADatabaseThatIsAway(t *testing.T) {
	h := liveHub()
	others(t, h, 3)
	h.Feed().Fail(h.Feed().Begin(10), errors.New("down"))
	reads := others(t, h, 5)
	h.Feed().FailAll(errors.New("down"))
	for i, r := range reads {
		select {
		case <-r.done:
			if !errors.Is(r.err, ErrUnavailable) {
				t.Errorf("%d: error %v", i, r.err)
			}
		default:
			t.Errorf("%d waits still", i)
		}
	}
}
