package hub

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/job"
)

func TestWhatIsNotifiedOfADisarmedBucketIsNotShown(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	h.Disarm(bucketA)
	if got := h.Apply(notice(running(2), 100)); got != Disarmed {
		t.Errorf("notice: %q", got)
	}
	if got := h.Apply(job.Notice{Kind: job.KindRow, Job: jobA}); got != Disarmed {
		t.Errorf("hint: %q", got)
	}
	if ids, _ := take(h, 10); len(ids) != 0 {
		t.Error("a hint has the row read besides the cycle")
	}
	if got := h.Apply(itemNotice("s1", "queued")); got != Applied {
		t.Errorf("item, which is in no row: %q", got)
	}
	if n := h.Poll(); n != 1 {
		t.Errorf("%d jobs are read on the cycle", n)
	}
	_, epoch := take(h, 10)
	if changed := h.Settle(epoch, []job.Snapshot{row(running(3), 101)}); len(changed) != 1 {
		t.Errorf("changed %v", changed)
	}
	expect(t, w.Changes(Cursor{}), progressEvent(3), statusEvent(job.Running), itemEvent("s1", "queued"))
	h.Poll()
	_, epoch = take(h, 10)
	if changed := h.Settle(epoch, []job.Snapshot{row(running(3), 102)}); len(changed) != 0 {
		t.Errorf("changed %v", changed)
	}
	second, read, _ := h.join(jobA)
	defer second.Close()
	if read == nil {
		t.Error("a new viewer is shown what was read a cycle ago")
	}
}

// It may be older than what was told before the bucket was disarmed.
func TestReadThatBeganBeforeTheDisarmProvesNothing(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	h.Sweep()
	_, epoch := take(h, 10)
	h.Apply(notice(running(2), 100))
	h.Disarm(bucketA)
	h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
	expect(t, w.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
	if ids, _ := take(h, 10); len(ids) != 1 {
		t.Error("the row is not read again")
	}
}

// It may have missed what was kept from us until then.
func TestReadThatBeganBeforeTheArmProvesNothing(t *testing.T) {
	h := New(prometheus.NewRegistry())
	h.Relisten()
	h.SetLive(true)
	w, read, _ := h.join(jobA)
	defer w.Close()
	_, epoch := take(h, 10)
	h.Arm(bucketA)
	h.Settle(epoch, []job.Snapshot{row(running(1), 100)})
	select {
	case <-read.done:
		t.Error("the viewer is answered")
	default:
	}
	_, epoch = take(h, 10)
	h.Settle(epoch, []job.Snapshot{row(running(2), 101)})
	<-read.done
	expect(t, w.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
	if got := h.Apply(notice(running(3), 101)); got != Applied {
		t.Errorf("notice: %q", got)
	}
}

func TestOnlyWhatIsWatchedAndNotArmedIsReadOnTheCycle(t *testing.T) {
	h := liveHub()
	w := watch(t, h, row(running(1), 100))
	if n := h.Poll(); n != 0 {
		t.Errorf("%d jobs of an armed bucket are read on the cycle", n)
	}
	h.Disarm(bucketA)
	if n := h.Poll(); n != 1 {
		t.Errorf("%d jobs of a disarmed bucket are read on the cycle", n)
	}
	w.Close()
	if n := h.Poll(); n != 0 {
		t.Errorf("%d jobs that nobody watches are read on the cycle", n)
	}
	if watched, kept := h.Watched(); watched != (job.Buckets{}) || kept != bucketA {
		t.Errorf("%d buckets are watched, %d kept", watched.Len(), kept.Len())
	}
}
