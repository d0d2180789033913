package hub

import (
	"errors"
	"slices"
	"testing"

	"jobprogress/internal/job"
)

const otherJob = job.ID("00000000-0000-4000-8000-0000000000b2")

// listOf is a group of an account's list that has been read. It goes with the test.
func listOf(t *testing.T, h *Hub, account string, ids ...job.ID) *Group {
	t.Helper()
	g := h.AccountGroup(account)
	t.Cleanup(g.Close)
	if got := h.Feed().BeginLists(10); !slices.Contains(got, account) {
		t.Fatalf("the lists of %q are read", got)
	}
	h.Feed().FinishLists(map[string][]job.ID{account: ids})
	return g
}

// A job that leaves the list is read once more before it goes, so that its viewers see why.
func TestAJobLeavesTheListAfterARead(t *testing.T) {
	h := liveHub()
	g := listOf(t, h, owner, jobA, otherJob)
	for _, id := range g.List.IDs() {
		h.Join(id)
	}
	poll := func(ids ...job.ID) []job.ID {
		t.Helper()
		if !h.Feed().PollLists() {
			t.Fatal("the poll before has not ended")
		}
		if h.Feed().PollLists() {
			t.Error("a poll begins while one is under way")
		}
		h.Feed().FinishLists(map[string][]job.ID{h.Feed().BeginLists(10)[0]: ids})
		return g.List.IDs()
	}
	h.Feed().Begin(10) // the first reads of both
	h.Feed().Finish([]job.Snapshot{{ID: jobA, Found: true, State: running(1)}, {ID: otherJob, Found: true, State: running(1)}}, "9:9:", every)
	var woken waker
	g.List.Watch(&woken)
	if ids := poll(otherJob); !slices.Equal(ids, []job.ID{otherJob, jobA}) || woken != 1 {
		t.Errorf("the list is %v, woken %d times", ids, woken)
	}
	if requests := h.Feed().Begin(10); len(requests) != 1 || requests[0].ID != jobA {
		t.Errorf("read is %v, and not the job that leaves", requests)
	}
	if ids := poll(otherJob); !slices.Equal(ids, []job.ID{otherJob}) || woken != 2 {
		t.Errorf("the list is %v, woken %d times", ids, woken)
	}
	if poll(otherJob); woken != 2 {
		t.Errorf("a list that is as before wakes its waker")
	}
}

// waker counts how often it is woken.
type waker int

func (w *waker) Wake() { *w++ }

// A waker is woken by each change, also by one of which nothing is sent, and not once its subscriber is closed.
func TestWatcherIsWokenByChanges(t *testing.T) {
	h := liveHub()
	s := subscribe(t, h, row(running(1)))
	var woken waker
	s.Watch(&woken)
	change(h, row(running(1)))
	if woken != 0 {
		t.Error("woken though nothing has changed")
	}
	change(h, row(running(2)))
	other := running(2)
	other.Account = "00000000-0000-4000-8000-0000000000cc"
	change(h, row(other))
	if woken != 2 {
		t.Errorf("woken %d times by two changes", woken)
	}
	seen := s.Changes(Cursor{}).Cursor
	if !s.Stands(seen) || s.Stands(Cursor{}) {
		t.Error("who has seen everything does not stand where the topic is")
	}
	s.Close()
	change(h, row(running(3)))
	if woken != 2 {
		t.Error("woken after the end")
	}
}

// A list that could not be read is read alone the next time, and later.
func TestAListThatFailedIsReadAlone(t *testing.T) {
	h := liveHub()
	listOf(t, h, "ada")
	g := h.AccountGroup("ben")
	defer g.Close()
	accounts := h.Feed().BeginLists(10)
	if !slices.Equal(accounts, []string{"ben"}) {
		t.Fatalf("lists of %q are read", accounts)
	}
	h.Feed().FailLists(accounts, errors.New("odd"))
	if _, err := g.Wait(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	h.Feed().PollLists()
	if accounts := h.Feed().BeginLists(10); !slices.Equal(accounts, []string{"ada"}) {
		t.Errorf("lists of %q are read", accounts)
	}
	again := h.AccountGroup("ben")
	defer again.Close()
	h.Feed().PollLists()
	h.AccountGroup("ada").Close()
	if first, second := h.Feed().BeginLists(10), h.Feed().BeginLists(10); !slices.Equal(first, []string{"ada"}) || !slices.Equal(second, []string{"ben"}) {
		t.Errorf("lists of %q and then of %q are read", first, second)
	}
}

// What a page shows from before is gone only when every job was read, and not there.
func TestSubscriberKnowsWhetherItsJobHasBeenRead(t *testing.T) {
	h := liveHub()
	s := h.Join(jobA)
	defer s.Close()
	if s.Known() {
		t.Error("it is known before the read")
	}
	h.Feed().Begin(1)
	h.Feed().Finish([]job.Snapshot{{ID: jobA}}, "9:9:", every)
	if !s.Known() {
		t.Error("it is not known after the read")
	}
}

// A viewer that comes from another server is shown what is read after it has come, and not what was known here before.
func TestAGroupBeginsWithAReadOfItsOwn(t *testing.T) {
	h := liveHub()
	first := h.Group([]job.ID{jobA})
	defer first.Close()
	read := func() {
		t.Helper()
		if requests := h.Feed().Begin(10); len(requests) != 1 {
			t.Fatalf("reads of %v", requests)
		}
		h.Feed().Finish([]job.Snapshot{{ID: jobA, Found: true, State: running(1)}}, "9:9:", every)
	}
	read()
	second := h.Group([]job.ID{jobA})
	defer second.Close()
	read()
}
