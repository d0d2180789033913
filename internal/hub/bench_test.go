package hub

import (
	"sync"
	"testing"

	"jobprogress/internal/job"
)

// BenchmarkFanOut is one change sent to a thousand subscribers, each in a goroutine of its own.
func BenchmarkFanOut(b *testing.B) {
	const viewers = 1000
	h := liveHub()
	w, _, _ := h.join(jobA)
	defer w.Close()
	h.Feed().Begin(10)
	h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
	var sent, ended sync.WaitGroup
	stop := make(chan struct{})
	for range viewers {
		batch := w.Changes(Cursor{})
		ended.Go(func() {
			for {
				select {
				case <-batch.Changed:
					batch = w.Changes(batch.Cursor)
					sent.Done()
				case <-stop:
					return
				}
			}
		})
	}
	for i := int64(0); b.Loop(); i++ {
		sent.Add(viewers)
		change(h, row(running(2+i%2)))
		sent.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/viewers, "ns/viewer")
	close(stop)
	ended.Wait()
}

// BenchmarkUnwatched is what a replica pays for a notification of a job that nobody watches there.
func BenchmarkUnwatched(b *testing.B) {
	h := liveHub()
	for b.Loop() {
		id, err := job.IDUUID.Parse(string(jobA))
		if err != nil {
			b.Fatal(err)
		}
		h.Feed().Want(id)
	}
}
