package bus

import (
	"context"
	"time"

	"jobprogress/internal/job"
)

// Busy makes a bucket busy as if it were too loud, for as long as it takes to be told Calm. It returns when its lock is
// given back.
func (b *Bus) Busy(ctx context.Context, bucket byte) {
	b.load.mu.Lock()
	b.load.buckets[bucket].becomeBusy(time.Now())
	b.load.buckets[bucket].until = time.Now().Add(time.Hour)
	b.load.mu.Unlock()
	var one job.Buckets
	one[bucket] = true
	b.orderNow(ctx, func(s *session, ctx context.Context) error {
		if !s.gate.rows[bucket] {
			return nil
		}
		return s.letGo(ctx, one)
	})
}

// Calm takes the lock of a bucket again.
func (b *Bus) Calm(ctx context.Context, bucket byte) {
	b.load.mu.Lock()
	b.load.buckets[bucket] = loudness{}
	b.load.mu.Unlock()
	b.orderNow(ctx, (*session).tend)
}

// orderNow waits until it is done.
func (b *Bus) orderNow(ctx context.Context, do func(*session, context.Context) error) {
	o := order{do, make(chan struct{})}
	b.orders <- o
	b.interrupt()
	select {
	case <-o.done:
	case <-ctx.Done():
	}
}

// Release gives back what is not watched any more.
func (b *Bus) Release(ctx context.Context) { b.orderNow(ctx, (*session).release) }
