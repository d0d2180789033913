package hub

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"jobprogress/internal/job"
)

func TestSubscribersShareOneReadAndOneEncoding(t *testing.T) {
	h := liveHub()
	const viewers = 1000
	subscribers := make(chan *Subscriber, viewers)
	for range viewers {
		go func() {
			s, err := h.Subscribe(t.Context(), jobA)
			if err != nil {
				t.Error(err)
			}
			subscribers <- s
		}()
	}
	reads := 0
	for len(subscribers) < viewers {
		select {
		case <-h.Feed().Wanted():
			if requests := h.Feed().Begin(10); len(requests) > 0 {
				reads++
				h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
			}
		case <-time.After(time.Millisecond):
		}
	}
	before := testutil.ToFloat64(h.metrics.encoded)
	change(h, row(running(2)))
	for range viewers {
		s := <-subscribers
		expect(t, s.Changes(Cursor{version: 2}), progressEvent(2))
		s.Close()
	}
	if encoded := testutil.ToFloat64(h.metrics.encoded) - before; reads != 1 || encoded != 1 {
		t.Errorf("%d reads and %v encodings, want 1 and 1", reads, encoded)
	}
}

func TestJobThatIsNotThereIsWaitedForAndNotRemembered(t *testing.T) {
	h := liveHub()
	go func() {
		<-h.Feed().Wanted()
		h.Feed().Begin(10)
		h.Feed().Finish([]job.Snapshot{gone}, "1:1:", every)
	}()
	s, err := h.Subscribe(t.Context(), jobA)
	if err != nil {
		t.Fatal(err)
	}
	news := s.Changed()
	_, found := s.Owner()
	if found || !h.Feed().Buckets()[job.IDUUID.Bucket(jobA)] {
		t.Errorf("found %v, and its bucket is wanted: %v", found, h.Feed().Buckets()[job.IDUUID.Bucket(jobA)])
	}
	change(h, row(running(1)))
	select {
	case <-news:
	default:
		t.Error("its insert is no news")
	}
	if account, found := s.Owner(); !found || account != owner {
		t.Errorf("after its insert: %v, of %q", found, account)
	}
	change(h, gone)
	s.Close()
	if len(h.topics) != 0 || h.Feed().Buckets() != (job.Buckets{}) {
		t.Error("the topic stayed")
	}
}

func TestNotFoundIsSaidOnlyOfAReadThatBeganLater(t *testing.T) {
	h := liveHub()
	first, _, _ := h.join(jobA)
	defer first.Close()
	h.Feed().Begin(10) // too early
	found := make(chan error, 1)
	go func() {
		s, err := h.Subscribe(t.Context(), jobA)
		if err == nil {
			s.Close()
		}
		found <- err
	}()
	for subscribers := 0; subscribers < 2; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		subscribers = h.topics[jobA].subscribers
		h.mu.Unlock()
	}
	h.Feed().Finish([]job.Snapshot{gone}, "1:1:", every)
	for len(h.Feed().Begin(10)) == 0 {
		time.Sleep(time.Millisecond)
	}
	h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
	if err := <-found; err != nil {
		t.Error(err)
	}
}

func TestReadOfATopicThatIsForgottenSaysNothingOfTheNext(t *testing.T) {
	h := liveHub()
	first, _, _ := h.join(jobA)
	h.Feed().Begin(10)
	first.Close()
	second, read, _ := h.join(jobA)
	defer second.Close()
	h.Feed().Finish([]job.Snapshot{gone}, "1:1:", every)
	select {
	case <-read.done:
		t.Fatal("answered by a read that had begun before")
	default:
	}
	h.Feed().Begin(10)
	h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
	<-read.done
	expect(t, second.Changes(Cursor{}), progressEvent(1), statusEvent(job.Running))
}

func TestThoseWhoWaitAreReadFirst(t *testing.T) {
	h := liveHub()
	for i := range 100 {
		s, _, _ := h.join(job.ID(fmt.Sprintf("bbbbbbbb-0000-4000-8000-%012d", i)))
		defer s.Close()
	}
	h.Feed().Begin(100)
	h.Feed().Backstop()
	s, _, _ := h.join(jobA)
	defer s.Close()
	if requests := h.Feed().Begin(1); requests[0].ID != jobA {
		t.Errorf("read is %v", requests)
	}
}

func TestReadThatFailsIsAnErrorForThoseWhoWaitAndTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := liveHub()
		w := subscribe(t, h, row(running(1)))
		h.Feed().Resync()
		failed := make(chan error, 1)
		go func() {
			_, err := h.Subscribe(t.Context(), jobA)
			failed <- err
		}()
		synctest.Wait()
		h.Feed().Fail(h.Feed().Begin(10), errors.New("down"))
		if err := <-failed; !errors.Is(err, ErrUnavailable) {
			t.Errorf("error %v, want ErrUnavailable", err)
		}
		expect(t, w.Changes(Cursor{}), progressEvent(1), statusEvent(job.Running))
		h.Feed().Poll()
		if requests := h.Feed().Begin(10); len(requests) != 0 {
			t.Error("the job is read again at once")
		}
		time.Sleep(firstRetry)
		h.Feed().Poll()
		h.Feed().Fail(h.Feed().Begin(10), errors.New("down"))
		time.Sleep(firstRetry)
		h.Feed().Poll()
		if requests := h.Feed().Begin(10); len(requests) != 0 {
			t.Error("the second time it is not waited for longer")
		}
		time.Sleep(firstRetry)
		h.Feed().Poll()
		if requests := h.Feed().Begin(10); len(requests) != 1 {
			t.Error("the job is no longer polled")
		}
	})
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	h := liveHub()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Subscribe(ctx, jobA); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if len(h.topics) != 0 {
		t.Error("the topic stayed")
	}
}

func TestRefreshWaitsForAReadThatBeginsAfterIt(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1)))
	h.Feed().Backstop()
	h.Feed().Begin(10)
	refreshed := make(chan error, 1)
	go func() { refreshed <- w.Refresh(t.Context()) }()
	<-h.Feed().Wanted()
	h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
	select {
	case <-refreshed:
		t.Error("content with a read that had begun before")
	case <-time.After(10 * time.Millisecond):
	}
	h.Feed().Begin(10)
	h.Feed().Finish([]job.Snapshot{row(running(2))}, "1:1:", every)
	if err := <-refreshed; err != nil {
		t.Error(err)
	}
	expect(t, w.Changes(Cursor{}), progressEvent(2), statusEvent(job.Running))
}

func TestWhileTheBusIsDegradedNewSubscribersAreRead(t *testing.T) {
	h := liveHub()
	subscribe(t, h, row(running(1)))
	_, changed := h.Status()
	h.Feed().SetDegraded("gone")
	<-changed
	if status, _ := h.Status(); status != (Status{Proven: true, Reason: "gone"}) {
		t.Errorf("status %+v", status)
	}
	s, awaited, _ := h.join(jobA)
	defer s.Close()
	if awaited == nil {
		t.Error("a topic is trusted that receives nothing")
	}
}
