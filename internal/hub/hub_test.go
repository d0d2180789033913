package hub

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"jobprogress/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	jobA  = job.ID("aaaaaaaa-0000-4000-8000-000000000000")
	owner = "11111111-0000-4000-8000-000000000000"
)

// every bucket is notified.
var every = job.Buckets{}.Complement()

// running is a state with some progress.
func running(done int64) job.State {
	return job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: done, Total: 10}}
}

// row is jobA as a read saw it.
func row(state job.State, items ...job.Item) job.Snapshot {
	return job.Snapshot{ID: jobA, Found: true, State: state, Items: items}
}

// gone is jobA as a read saw it that found none.
var gone = job.Snapshot{ID: jobA}

func item(seq int64, id, status string) job.Item {
	return job.Item{ItemID: id, ItemKind: "song", Status: status, Seq: seq}
}

// change notifies a change of jobA and has it read.
func change(h *Hub, s job.Snapshot) (changed bool) {
	h.Feed().Want(jobA)
	h.Feed().Begin(10)
	return len(h.Feed().Finish([]job.Snapshot{s}, "9:9:", every)) > 0
}

// liveHub is a hub that receives everything.
func liveHub() *Hub {
	h := New(prometheus.NewRegistry())
	h.Feed().SetTable(job.Table{IDType: job.IDUUID, Deleted: job.DeletedGone})
	h.Feed().SetLive()
	return h
}

// subscribe subscribes to jobA, whose row is as s says. The subscriber goes with the test.
func subscribe(t *testing.T, h *Hub, s job.Snapshot) *Subscriber {
	t.Helper()
	sub, read, _ := h.join(jobA)
	t.Cleanup(sub.Close)
	if read != nil {
		s.AllItems = true
		h.Feed().Begin(10)
		h.Feed().Finish([]job.Snapshot{s}, "1:1:", every)
		<-read.done
	}
	return sub
}

// data is what a batch says, one event a line.
func data(b Batch) string {
	var lines []string
	for _, f := range b.Frames {
		lines = append(lines, strings.TrimSuffix(strings.TrimPrefix(string(f.Data), "data: "), "\n\n"))
	}
	return strings.Join(lines, "\n")
}

func expect(t *testing.T, b Batch, want ...string) {
	t.Helper()
	if got := data(b); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func progressEvent(done int64) string {
	return fmt.Sprintf(`{"type":"progress","done":%d,"total":10,"succeeded":0,"failed":0}`, done)
}

func statusEvent(s job.Status) string { return fmt.Sprintf(`{"type":"status","status":%q}`, s) }

func errorEvent(m string) string { return fmt.Sprintf(`{"type":"error","message":%q}`, m) }

func itemEvent(id, status string) string {
	return fmt.Sprintf(`{"type":"item","itemId":%q,"itemKind":"song","status":%q}`, id, status)
}

func TestNewViewerGetsTheJobThenItsItems(t *testing.T) {
	h := liveHub()
	failing := running(2)
	failing.Error = "slow"
	w := subscribe(t, h, row(failing, item(1, "s1", "queued")))
	b := w.Changes(Cursor{})
	expect(t, b, progressEvent(2), statusEvent(job.Running), errorEvent("slow"), itemEvent("s1", "queued"))
	if b.End != Open || b.Account != owner {
		t.Errorf("end %v, account %q", b.End, b.Account)
	}
	expect(t, w.Changes(b.Cursor))
}

func TestNothingToShowIsSentOnlyToPagesThatMayShowSomething(t *testing.T) {
	h := liveHub()
	first := running(1)
	first.Error = "slow"
	w := subscribe(t, h, row(first))
	seen := w.Changes(Cursor{})
	change(h, row(job.State{Account: owner, Status: job.Running}))
	blankProgress := `{"type":"progress","done":0,"total":0,"succeeded":0,"failed":0}`
	expect(t, w.Changes(Cursor{}), statusEvent(job.Running))
	expect(t, w.Changes(seen.Cursor), blankProgress, errorEvent(""))
	expect(t, w.Changes(w.Cursor("another server's")), blankProgress, statusEvent(job.Running), errorEvent(""))
}

func TestEndedJobSendsItsStatusLast(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1)))
	seen := w.Changes(Cursor{})
	change(h, row(running(1), item(1, "s1", "queued")))
	ended := running(10)
	ended.Status, ended.Error = job.Failed, "broken"
	change(h, row(ended))
	change(h, row(ended, item(2, "s2", "failed")))
	for cursor, want := range map[Cursor][]string{
		{}:          {progressEvent(10), errorEvent("broken"), itemEvent("s1", "queued"), itemEvent("s2", "failed"), statusEvent(job.Failed)},
		seen.Cursor: {itemEvent("s1", "queued"), progressEvent(10), errorEvent("broken"), itemEvent("s2", "failed"), statusEvent(job.Failed)},
	} {
		b := w.Changes(cursor)
		expect(t, b, want...)
		if last := b.Frames[len(b.Frames)-1]; b.End != Final || !w.Seen(last.ID) {
			t.Errorf("end %v, and the last id %q is not the final one", b.End, last.ID)
		}
		if w.Seen(b.Frames[0].ID) {
			t.Error("the first id is taken for the final one")
		}
	}
}

func TestFinalIDIsTheSameOnEveryServerAndNotThatOfAnotherEnd(t *testing.T) {
	ended := running(10)
	ended.Status = job.Completed
	final := func(s job.State) string {
		frames := subscribe(t, liveHub(), row(s)).Changes(Cursor{}).Frames
		return frames[len(frames)-1].ID
	}
	other := ended
	other.Progress.Failed = 1
	here, there, another := final(ended), final(ended), final(other)
	if here != there || here == another {
		t.Errorf("ids %q, %q of one end, %q of another", here, there, another)
	}
}

func TestStartedAgainShowsOnlyTheItemsOfTheNewRun(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1), item(1, "old", "succeeded"), item(2, "again", "succeeded")))
	next := row(running(0), item(3, "new", "queued"), item(4, "again", "queued"))
	next.Run, next.AllItems = "2", true
	change(h, next)
	expect(t, w.Changes(Cursor{}), progressEvent(0), statusEvent(job.Running), itemEvent("new", "queued"), itemEvent("again", "queued"))
}

// Transactions commit in another order than that in which they called item().
func TestOfTwoStatusesOfAnItemTheHigherSeqCounts(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1), item(7, "s1", "succeeded")))
	if change(h, row(running(1), item(6, "s1", "in_progress"))) {
		t.Error("a status from before is something new")
	}
	expect(t, w.Changes(Cursor{}), progressEvent(1), statusEvent(job.Running), itemEvent("s1", "succeeded"))
}

// A crash of the database empties the log, and its sequence begins anew.
func TestAllItemsReplaceWhatWasKnown(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1), item(70, "s1", "queued"), item(71, "s2", "queued")))
	h.Feed().Resync()
	if r := h.Feed().Begin(10); len(r) != 1 || r[0].Seen != "" {
		t.Errorf("after a resync the requests are %+v", r)
	}
	again := row(running(1), item(1, "s1", "in_progress"))
	again.AllItems = true
	h.Feed().Finish([]job.Snapshot{again}, "2:2:", every)
	expect(t, w.Changes(Cursor{}), progressEvent(1), statusEvent(job.Running), itemEvent("s1", "in_progress"))
}

func TestRequestsSayWhatWasReadLast(t *testing.T) {
	h := liveHub()
	first := row(running(1))
	first.Run = "run"
	subscribe(t, h, first)
	h.Feed().Want(jobA)
	if r := h.Feed().Begin(10); len(r) != 1 || r[0] != (job.Request{ID: jobA, Run: "run", Seen: "1:1:"}) {
		t.Errorf("requests %+v", r)
	}
}

func TestFinishedItemsAreForgottenFirst(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1)))
	for i := range int64(MaxItems - 1) {
		change(h, row(running(1), item(i+1, fmt.Sprint("s", i), "in_progress")))
	}
	change(h, row(running(1), item(300, "ready", "succeeded"), item(301, "one more", "failed"), item(302, "and more", "queued")))
	got := data(w.Changes(Cursor{}))
	for id, kept := range map[string]bool{"s0": true, "s254": true, "ready": false, "one more": false, "and more": true} {
		if strings.Contains(got, fmt.Sprintf("%q", id)) != kept {
			t.Errorf("item %q kept: %v, want %v", id, !kept, kept)
		}
	}
	change(h, row(running(1), item(303, "last", "queued")))
	if got := data(w.Changes(Cursor{})); strings.Contains(got, `"s0"`) || strings.Count(got, `"item"`) != MaxItems {
		t.Errorf("%d items, s0 among them: %v", strings.Count(got, `"item"`), strings.Contains(got, `"s0"`))
	}
}

func TestEqualStateAndEqualItemAreNothingNew(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1), item(1, "s1", "queued")))
	seen := w.Changes(Cursor{})
	var woken waker
	w.Watch(&woken)
	if change(h, row(running(1), item(2, "s1", "queued"))) {
		t.Error("nothing has changed")
	}
	expect(t, w.Changes(seen.Cursor))
	if woken != 0 {
		t.Error("the waker was woken for nothing")
	}
}

func TestDeletedJobEndsItsViewersAndIsForgotten(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1)))
	seen := w.Changes(Cursor{})
	change(h, gone)
	b := w.Changes(seen.Cursor)
	expect(t, b, errorEvent("job no longer exists"))
	if b.End != Gone {
		t.Errorf("end %v, want Gone", b.End)
	}
	if len(h.topics) != 0 {
		t.Error("the topic stayed")
	}
}

func TestTopicLingersForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := liveHub()
		w := subscribe(t, h, row(running(1)))
		time.Sleep(2 * Linger)
		h.Feed().Backstop()
		w.Close()
		time.Sleep(Linger - time.Second)
		h.Feed().Backstop()
		if len(h.topics) != 1 {
			t.Error("the topic is gone too early")
		}
		change(h, row(running(2)))
		again, awaited, _ := h.join(jobA)
		if awaited != nil {
			t.Error("a warm topic is read again")
		}
		expect(t, again.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
		again.Close()
		time.Sleep(Linger)
		h.Feed().Backstop()
		if len(h.topics) != 0 {
			t.Error("the topic stayed")
		}
	})
}

// Another table, with ids of another type: buckets are its, and jobs that can't be there are gone.
func TestAnotherTable(t *testing.T) {
	h := New(prometheus.NewRegistry())
	h.Feed().SetTable(job.Table{IDType: job.IDText, Deleted: job.DeletedCompleted})
	h.Feed().SetLive()
	watch := func(id job.ID) *Subscriber {
		go func() {
			<-h.Feed().Wanted()
			h.Feed().Begin(10)
			h.Feed().Finish([]job.Snapshot{{ID: id, Found: true, State: running(1)}}, "9:9:", every)
		}()
		s, err := h.Subscribe(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	text, number := watch("user/7"), watch("300")
	h.Feed().SetTable(job.Table{IDType: job.IDBigint, Deleted: job.DeletedGone})
	if b := text.Changes(Cursor{}); b.End != Gone {
		t.Errorf("the job of the former table goes on: %+v", b)
	}
	if b := number.Changes(Cursor{}); b.End != Open {
		t.Errorf("the other one ends: %+v", b)
	}
	var want job.Buckets
	want[300&255] = true
	if got := h.Feed().Buckets(); got != want {
		t.Errorf("buckets %v", got)
	}
	text.Close()
	number.Close()
}
