package hub

import (
	"testing"

	"jobprogress/internal/job"
)

func TestNoticeThatTheSnapshotSawIsIgnored(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(5), 100, "42"))
	for xid, want := range map[uint64]string{41: Stale, 99: Stale} {
		if got := h.Apply(notice(running(3), xid)); got != want {
			t.Errorf("notice of %d: %q, want %q", xid, got, want)
		}
	}
	expect(t, w.Changes(Cursor{}), progressEvent(5), statusEvent(job.Running))
	if got := h.Apply(notice(running(6), 42)); got != Applied {
		t.Errorf("notice of a transaction in progress: %q", got)
	}
	expect(t, w.Changes(Cursor{}), progressEvent(6), statusEvent(job.Running))
}

func TestSnapshotOlderThanTheTopicIsIgnored(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	h.Sweep()
	_, epoch := take(h, 10)
	h.Apply(notice(running(2), 100))
	h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
	expect(t, w.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
	h.Sweep()
	_, epoch = take(h, 10)
	h.Settle(epoch, []job.Snapshot{row(running(3), 101)})
	expect(t, w.Changes(Cursor{}), progressEvent(3), statusEvent(job.Running))
}

func TestNoticeBeforeTheFirstSnapshot(t *testing.T) {
	for name, tt := range map[string]struct {
		snapshot job.Snapshot
		want     int64
	}{
		"seen by it":                     {row(running(7), 101), 7},
		"newer than it":                  {row(running(1), 100), 2},
		"of a transaction it saw begun":  {row(running(1), 101, "100"), 2},
		"newer than one that saw no row": {job.Snapshot{ID: jobA}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := liveHub()
			w, awaited, _ := h.join(jobA)
			defer w.Close()
			_, epoch := take(h, 10)
			h.Apply(notice(running(2), 100))
			h.Settle(epoch, []job.Snapshot{tt.snapshot})
			if !tt.snapshot.Found {
				ids, epoch := take(h, 10)
				if len(ids) != 1 {
					t.Fatal("the row is not looked at again")
				}
				h.Settle(epoch, []job.Snapshot{row(running(2), 101)})
			}
			<-awaited.done
			expect(t, w.Changes(Cursor{}), progressEvent(tt.want), statusEvent(job.Running))
		})
	}
}

func TestNewListenForgetsTransactionsAndReadsAgain(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(5), 1000))
	h.Sweep()
	_, before := take(h, 10)
	relisten(h)

	// A read that began before the LISTEN may miss what was committed before it and notified to nobody.
	h.Settle(before, []job.Snapshot{row(running(4), 1000)})
	expect(t, w.Changes(Cursor{}), progressEvent(5), statusEvent(job.Running))

	ids, epoch := take(h, 10)
	if len(ids) != 1 {
		t.Fatal("the topic is not read again")
	}
	// The other server is behind with its transaction ids.
	h.Apply(notice(running(7), 20))
	h.Settle(epoch, []job.Snapshot{row(running(6), 20)})
	expect(t, w.Changes(Cursor{}), progressEvent(7), statusEvent(job.Running))
}

func TestForgedNoticeDoesNotOutliveTheNextRead(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(5), 100))
	h.Apply(notice(running(9), 1<<60))
	h.Sweep()
	_, epoch := take(h, 10)
	h.Settle(epoch, []job.Snapshot{row(running(5), 101)})
	expect(t, w.Changes(Cursor{}), progressEvent(5), statusEvent(job.Running))
}

func TestOwnerComesWithEveryState(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	seen := w.Changes(Cursor{})
	given := running(1)
	given.Account = "somebody else"
	h.Apply(notice(given, 100))
	<-seen.Changed
	if b := w.Changes(seen.Cursor); b.Account != "somebody else" || w.Account() != "somebody else" {
		t.Errorf("account %q", b.Account)
	}
}
