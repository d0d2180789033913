package hub

import (
	"sync"
	"testing"

	"jobprogress/internal/job"
)

// BenchmarkFanOut is one change told to a thousand watchers, each in a goroutine of its own.
func BenchmarkFanOut(b *testing.B) {
	const viewers = 1000
	h := liveHub()
	w, _, _ := h.join(jobA)
	defer w.Close()
	_, epoch := take(h, 10)
	h.Settle(epoch, []job.Snapshot{row(running(1), 2)})
	var told, ended sync.WaitGroup
	stop := make(chan struct{})
	for range viewers {
		batch := w.Changes(Cursor{})
		ended.Go(func() {
			for {
				select {
				case <-batch.Changed:
					batch = w.Changes(batch.Cursor)
					told.Done()
				case <-stop:
					return
				}
			}
		})
	}
	for i := int64(0); b.Loop(); i++ {
		told.Add(viewers)
		h.Apply(notice(running(2+i%2), uint64(i)+2))
		told.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/viewers, "ns/viewer")
	close(stop)
	ended.Wait()
}

// BenchmarkApplyUnwatched is what a replica pays for a notice about a job that nobody watches there.
func BenchmarkApplyUnwatched(b *testing.B) {
	h := liveHub()
	const payload = `{"kind":"state","job":"` + string(jobA) + `","xid":"734","at":1795453060565310,"account":"00000000-0000-4000-8000-00000000000a","status":"running","progress":{"done":1,"total":10,"failed":null,"succeeded":null},"error":null}`
	for b.Loop() {
		n, err := job.ParseNotice(payload)
		if err != nil {
			b.Fatal(err)
		}
		h.Apply(n)
	}
}
