package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"jobprogress/internal/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	jobA  = job.ID("aaaaaaaa-0000-4000-8000-000000000000")
	owner = "11111111-0000-4000-8000-000000000000"
)

var bucketA = job.Buckets{0: true} // jobA is in it

// running is a state with some progress.
func running(done int64) job.State {
	return job.State{Account: owner, Status: job.Running, Progress: job.Progress{Done: done, Total: 10}}
}

// row is a snapshot that saw all transactions before xmax but those in progress.
func row(state job.State, xmax uint64, inProgress ...string) job.Snapshot {
	v, err := job.ParseVisibility(fmt.Sprintf("1:%d:%s", xmax, strings.Join(inProgress, ",")))
	if err != nil {
		panic(err)
	}
	return job.Snapshot{ID: jobA, Found: true, State: state, Visible: v}
}

func notice(state job.State, xid uint64) job.Notice {
	return job.Notice{Kind: job.KindState, Job: jobA, XID: xid, State: state}
}

func itemNotice(id, status string) job.Notice {
	return job.Notice{Kind: job.KindItem, Job: jobA, Item: job.Item{ItemID: id, ItemKind: "song", Status: status}}
}

// take begins a read of what is to be read.
func take(h *Hub, limit int) (ids []job.ID, epoch uint64) {
	ids = h.Next(limit)
	return ids, h.Take(ids)
}

// liveHub is a hub that hears everything of jobA.
func liveHub() *Hub {
	h := New(prometheus.NewRegistry())
	relisten(h)
	h.SetLive(true)
	return h
}

// relisten has a new LISTEN, and the gate armed.
func relisten(h *Hub) {
	h.Relisten()
	h.Arm(bucketA)
}

// watch watches jobA, whose row is as s says. The watcher goes with the test.
func watch(t *testing.T, h *Hub, s job.Snapshot) *Watcher {
	t.Helper()
	w, read, _ := h.join(jobA)
	t.Cleanup(w.Close)
	if read != nil {
		_, epoch := take(h, 10)
		h.Settle(epoch, []job.Snapshot{s})
		<-read.done
	}
	return w
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
	w := watch(t, h, row(running(1), 100))
	h.Apply(itemNotice("s1", "queued"))
	failing := running(2)
	failing.Error = "slow"
	h.Apply(notice(failing, 100))
	b := w.Changes(Cursor{})
	expect(t, b, progressEvent(2), statusEvent(job.Running), errorEvent("slow"), itemEvent("s1", "queued"))
	if b.End != Open || b.Account != owner {
		t.Errorf("end %v, account %q", b.End, b.Account)
	}
	expect(t, w.Changes(b.Cursor))
}

func TestNothingToShowIsNotSentToANewViewerAndIsToOneWhoSawSomething(t *testing.T) {
	h := liveHub()
	first := running(1)
	first.Error = "slow"
	w := watch(t, h, row(first, 100))
	seen := w.Changes(Cursor{})
	h.Apply(notice(job.State{Account: owner, Status: job.Running}, 100))
	expect(t, w.Changes(Cursor{}), statusEvent(job.Running))
	expect(t, w.Changes(seen.Cursor), `{"type":"progress","done":0,"total":0,"succeeded":0,"failed":0}`, errorEvent(""))
}

func TestEndedJobSaysItsStatusLast(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	seen := w.Changes(Cursor{})
	h.Apply(itemNotice("s1", "queued"))
	ended := running(10)
	ended.Status, ended.Error = job.Failed, "broken"
	h.Apply(notice(ended, 100))
	h.Apply(itemNotice("s2", "failed"))
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
		frames := watch(t, liveHub(), row(s, 100)).Changes(Cursor{}).Frames
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
	w := watch(t, h, row(running(1), 100))
	h.Apply(itemNotice("old", "succeeded"))
	ended := running(10)
	ended.Status = job.Completed
	h.Apply(notice(ended, 100))
	h.Apply(itemNotice("new", "queued"))
	h.Apply(notice(running(0), 101))
	b := w.Changes(Cursor{})
	expect(t, b, progressEvent(0), statusEvent(job.Running), itemEvent("new", "queued"))
	if b.End != Open {
		t.Error("the stream would end")
	}
}

func TestFinishedItemsAreForgottenFirst(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	for i := range MaxItems - 1 {
		h.Apply(itemNotice(fmt.Sprint("s", i), "in_progress"))
	}
	h.Apply(itemNotice("ready", "succeeded"))
	h.Apply(itemNotice("one more", "failed"))
	h.Apply(itemNotice("and more", "queued"))
	got := data(w.Changes(Cursor{}))
	for id, kept := range map[string]bool{"s0": true, "s254": true, "ready": false, "one more": false, "and more": true} {
		if strings.Contains(got, fmt.Sprintf("%q", id)) != kept {
			t.Errorf("item %q kept: %v, want %v", id, !kept, kept)
		}
	}
	h.Apply(itemNotice("last", "queued"))
	if got := data(w.Changes(Cursor{})); strings.Contains(got, `"s0"`) || strings.Count(got, `"item"`) != MaxItems {
		t.Errorf("%d items, s0 among them: %v", strings.Count(got, `"item"`), strings.Contains(got, `"s0"`))
	}
}

func TestEqualStateAndEqualItemSayNothing(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	h.Apply(itemNotice("s1", "queued"))
	seen := w.Changes(Cursor{})
	h.Apply(itemNotice("s1", "queued"))
	h.Apply(notice(running(1), 100))
	expect(t, w.Changes(seen.Cursor))
	select {
	case <-seen.Changed:
		t.Error("the viewer was woken for nothing")
	default:
	}
}

func TestWatchersShareOneReadAndOneEncoding(t *testing.T) {
	h := liveHub()
	const viewers = 1000
	watchers := make(chan *Watcher, viewers)
	for range viewers {
		go func() {
			w, err := h.Watch(t.Context(), jobA)
			if err != nil {
				t.Error(err)
			}
			watchers <- w
		}()
	}
	reads := 0
	for len(watchers) < viewers {
		select {
		case <-h.Wanted():
			if ids, epoch := take(h, 10); len(ids) > 0 {
				reads++
				h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
			}
		case <-time.After(time.Millisecond):
		}
	}
	before := testutil.ToFloat64(h.metrics.encoded)
	h.Apply(notice(running(2), 100))
	for range viewers {
		w := <-watchers
		expect(t, w.Changes(Cursor{version: 2}), progressEvent(2))
		w.Close()
	}
	if encoded := testutil.ToFloat64(h.metrics.encoded) - before; reads != 1 || encoded != 1 {
		t.Errorf("%d reads and %v encodings, want 1 and 1", reads, encoded)
	}
}

func TestUnknownJobIsNotFoundAndNotRemembered(t *testing.T) {
	h := liveHub()
	go func() {
		<-h.Wanted()
		_, epoch := take(h, 10)
		h.Settle(epoch, []job.Snapshot{{ID: jobA}})
	}()
	if _, err := h.Watch(t.Context(), jobA); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if len(h.topics) != 0 {
		t.Error("the topic stayed")
	}
}

func TestNotFoundIsSaidOnlyOfAReadThatBeganLater(t *testing.T) {
	h := liveHub()
	first, _, _ := h.join(jobA)
	defer first.Close()
	_, tooEarly := take(h, 10)
	found := make(chan error, 1)
	go func() {
		w, err := h.Watch(t.Context(), jobA)
		if err == nil {
			w.Close()
		}
		found <- err
	}()
	for watchers := 0; watchers < 2; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		watchers = h.topics[jobA].watchers
		h.mu.Unlock()
	}
	h.Settle(tooEarly, []job.Snapshot{{ID: jobA}})
	var epoch uint64
	for ids := []job.ID(nil); len(ids) == 0; time.Sleep(time.Millisecond) {
		ids, epoch = take(h, 10)
	}
	h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
	if err := <-found; err != nil {
		t.Error(err)
	}
}

func TestReadOfATopicThatIsForgottenSaysNothingOfTheNext(t *testing.T) {
	h := liveHub()
	first, _, _ := h.join(jobA)
	_, before := take(h, 10)
	first.Close()
	second, read, _ := h.join(jobA)
	defer second.Close()
	h.Settle(before, []job.Snapshot{{ID: jobA}})
	select {
	case <-read.done:
		t.Fatal("answered by a read that had begun before")
	default:
	}
	_, epoch := take(h, 10)
	h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
	<-read.done
	expect(t, second.Changes(Cursor{}), progressEvent(1), statusEvent(job.Running))
}

func TestThoseWhoWaitAreReadFirst(t *testing.T) {
	h := liveHub()
	for i := range 100 {
		w, _, _ := h.join(job.ID(fmt.Sprintf("bbbbbbbb-0000-4000-8000-%012d", i)))
		defer w.Close()
	}
	take(h, 100)
	for _, topic := range h.topics {
		h.reread(topic)
	}
	w, _, _ := h.join(jobA)
	defer w.Close()
	if ids, _ := take(h, 1); ids[0] != jobA {
		t.Errorf("read is %v", ids)
	}
}

func TestReadThatFailsIsToldAndTriedAgainForThoseWhoWatch(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	h.Relisten()
	h.SetLive(false)
	failed := make(chan error, 1)
	go func() {
		_, err := h.Watch(t.Context(), jobA)
		failed <- err
	}()
	for {
		h.mu.Lock()
		waiting := len(h.topics[jobA].awaited) > 0
		h.mu.Unlock()
		if waiting {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ids, _ := take(h, 10)
	h.Fail(ids, errors.New("down"))
	if err := <-failed; !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	expect(t, w.Changes(Cursor{}), progressEvent(1), statusEvent(job.Running))
	if ids, _ := take(h, 10); len(ids) != 1 {
		t.Error("the job is no longer wanted")
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	h := liveHub()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Watch(ctx, jobA); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if len(h.topics) != 0 {
		t.Error("the topic stayed")
	}
}

func TestRefreshWaitsForAReadThatBeginsAfterIt(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	h.Sweep()
	_, epoch := take(h, 10)
	refreshed := make(chan error, 1)
	go func() { refreshed <- w.Refresh(t.Context()) }()
	<-h.Wanted()
	h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
	select {
	case <-refreshed:
		t.Error("content with a read that had begun before")
	case <-time.After(10 * time.Millisecond):
	}
	_, epoch = take(h, 10)
	h.Settle(epoch, []job.Snapshot{row(running(2), 101)})
	if err := <-refreshed; err != nil {
		t.Error(err)
	}
	expect(t, w.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
}

func TestDeletedJobEndsItsViewersAndIsForgotten(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	seen := w.Changes(Cursor{})
	h.Apply(job.Notice{Kind: job.KindRow, Job: jobA})
	ids, epoch := take(h, 10)
	if len(ids) != 1 {
		t.Fatal("the row is not looked at")
	}
	gone := row(job.State{}, 101)
	gone.Found = false
	h.Settle(epoch, []job.Snapshot{gone})
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
		w := watch(t, h, row(running(1), 100))
		time.Sleep(2 * Linger)
		h.Sweep()
		w.Close()
		time.Sleep(Linger - time.Second)
		if n := h.Sweep(); n != 1 {
			t.Error("the topic is gone too early")
		}
		h.Apply(notice(running(2), 100))
		again, awaited, _ := h.join(jobA)
		if awaited != nil {
			t.Error("a warm topic is read again")
		}
		expect(t, again.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
		again.Close()
		time.Sleep(Linger)
		if n := h.Sweep(); n != 0 {
			t.Error("the topic stayed")
		}
	})
}

func TestWhileTheBusIsNotLiveNewWatchersAreRead(t *testing.T) {
	h := liveHub()
	watch(t, h, row(running(1), 100))
	_, changed := h.Live()
	h.SetLive(false)
	<-changed
	w, awaited, _ := h.join(jobA)
	defer w.Close()
	if awaited == nil {
		t.Error("a topic is trusted that hears nothing")
	}
}
