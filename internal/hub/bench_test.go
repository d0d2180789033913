package hub

import (
	"testing"

	"jobprogress/internal/job"
)

// BenchmarkUnwatched is what a replica pays for a notification of a job that is unwatched there.
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
