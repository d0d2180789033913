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
	g.Adjust()
	return g
}

// A job that leaves the list is read once more before it goes, so that its viewers see why.
func TestAJobLeavesTheListAfterARead(t *testing.T) {
	h := liveHub()
	g := listOf(t, h, owner, jobA, otherJob)
	poll := func(ids ...job.ID) (members, gone []job.ID) {
		t.Helper()
		if !h.Feed().PollLists() {
			t.Fatal("the poll before has not ended")
		}
		if h.Feed().PollLists() {
			t.Error("a poll begins while one is under way")
		}
		h.Feed().FinishLists(map[string][]job.ID{h.Feed().BeginLists(10)[0]: ids})
		return g.Adjust()
	}
	h.Feed().Begin(10) // the first reads of both
	h.Feed().Finish([]job.Snapshot{{ID: jobA, Found: true, State: running(1)}, {ID: otherJob, Found: true, State: running(1)}}, "9:9:", every)
	if members, gone := poll(otherJob); !slices.Equal(members, []job.ID{otherJob, jobA}) || gone != nil {
		t.Errorf("members %v, gone %v", members, gone)
	}
	if requests := h.Feed().Begin(10); len(requests) != 1 || requests[0].ID != jobA {
		t.Errorf("read is %v, and not the job that leaves", requests)
	}
	if members, gone := poll(otherJob); !slices.Equal(members, []job.ID{otherJob}) || !slices.Equal(gone, []job.ID{jobA}) {
		t.Errorf("members %v, gone %v", members, gone)
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
func TestAGroupIsWholeWhenAllHaveBeenRead(t *testing.T) {
	h := liveHub()
	g := h.Group([]job.ID{jobA, otherJob})
	defer g.Close()
	for i := range 2 {
		if g.Whole() {
			t.Fatalf("it is whole after %d reads", i)
		}
		requests := h.Feed().Begin(1)
		h.Feed().Finish([]job.Snapshot{{ID: requests[0].ID, Found: i == 0, State: running(1)}}, "9:9:", every)
	}
	if !g.Whole() {
		t.Error("it is not whole when all have been read")
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
