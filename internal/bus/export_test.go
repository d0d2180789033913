package bus

import (
	"context"
	"time"

	"jobprogress/internal/job"
)

// Busy makes a bucket busy as if it were too loud, until Calm. It returns when its lock is given back.
func (b *Bus) Busy(ctx context.Context, bucket byte) {
	b.orderNow(ctx, func(s *session, ctx context.Context) error {
		one := &s.load.buckets[bucket]
		one.becomeBusy(time.Now(), s.changes.cycle.Load())
		one.until = time.Now().Add(time.Hour)
		if !s.gate.held.Rows[bucket] {
			return nil
		}
		var loud job.Buckets
		loud[bucket] = true
		return s.letGo(ctx, loud)
	})
}

// Calm takes the lock of a bucket again.
func (b *Bus) Calm(ctx context.Context, bucket byte) {
	b.orderNow(ctx, func(s *session, ctx context.Context) error {
		s.load.buckets[bucket] = loudness{}
		return s.tend(ctx)
	})
}

// Strained tells whether little is left of the budget.
func (b *Bus) Strained(ctx context.Context) (strained bool) {
	b.orderNow(ctx, func(s *session, _ context.Context) error { strained = s.load.strained(); return nil })
	return strained
}

// orderNow waits until it is done.
func (b *Bus) orderNow(ctx context.Context, do func(*session, context.Context) error) {
	o := order{do: do, done: make(chan error, 1)}
	b.orders <- o
	b.interrupt()
	select {
	case <-o.done:
	case <-ctx.Done():
	}
}
