package bus

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"jobprogress/internal/store"
)

// sweepInterval is between two sweeps of the items.
const sweepInterval = 30 * time.Second

// sweepTimeout bounds one sweep.
const sweepTimeout = 20 * time.Second

// sweeper deletes items that no viewer will see any more. Of several servers one does: it holds a lock over a session of
// its own, so that no read waits for it.
type sweeper struct {
	config  Config
	metrics metrics
	failed  rate.Sometimes
}

func (s *sweeper) run(ctx context.Context) {
	s.failed.Interval = 10 * time.Minute
	for sleep(ctx, jitter(sweepInterval)) {
		// Only what is live is known to be no transaction pooler, behind which the lock would outlive us.
		if status, _ := s.config.Hub.Status(); !status.Live {
			continue
		}
		if err := s.session(ctx); err != nil && ctx.Err() == nil {
			s.failed.Do(func() { s.config.Log.Warn("items not swept", "error", err) })
		}
	}
}

// session sweeps for as long as the session lasts, if no other server does.
func (s *sweeper) session(ctx context.Context) error {
	conn, err := store.Connect(ctx, s.config.URL(), "jobprogress sweep")
	if err != nil {
		return err
	}
	defer closeSession(ctx, conn)
	for {
		sweeping, cancel := context.WithTimeout(ctx, sweepTimeout)
		mine, deleted, err := store.Sweep(sweeping, conn)
		cancel()
		if err != nil || !mine {
			return err
		}
		s.metrics.sweeps.Inc()
		s.metrics.swept.Add(float64(deleted))
		if !sleep(ctx, jitter(sweepInterval)) {
			return nil
		}
	}
}
