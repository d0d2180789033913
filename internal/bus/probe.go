package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// A probe is a notification to oneself, sent over another connection. That it comes back is the only proof that
// notices are heard: not with a transaction pooler in between, a connection that is dead without having been closed,
// a primary that no longer is one, or a handler that hangs.
const (
	probeInterval = 5 * time.Second
	probeTimeout  = 4 * time.Second // found and mended within two intervals
)

var errNoEcho = errors.New("probe did not come back: LISTEN needs a direct session to the primary (LISTEN_DATABASE_URL), not a transaction pooler")

// probe proves that the bus hears, as soon as it listens and then regularly. If it does not, the session is cut.
func (b *Bus) probe(ctx context.Context) {
	for {
		timer := time.NewTimer(jitter(probeInterval))
		select {
		case <-ctx.Done():
		case <-b.listening:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		start := time.Now()
		if err := b.roundTrip(ctx); err != nil {
			if ctx.Err() == nil {
				b.degraded(err)
				b.cut()
			}
			continue
		}
		b.metrics.roundTrip.Observe(time.Since(start).Seconds())
		if err := b.canRead(ctx); err != nil {
			if ctx.Err() == nil {
				b.degraded(err)
			}
			continue
		}
		b.live()
	}
}

func (b *Bus) roundTrip(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	nonce := rand.Text()
	payload := `{"kind":"probe","probe":"` + nonce + `"}`
	if err := b.Store.Notify(ctx, Channel, payload); err != nil {
		return fmt.Errorf("send probe: %w", err)
	}
	for {
		select {
		case echo := <-b.echo:
			if echo == nonce {
				return nil
			}
		case <-b.listening: // the session that was to hear it is gone, and this is the next one
			if err := b.Store.Notify(ctx, Channel, payload); err != nil {
				return fmt.Errorf("send probe: %w", err)
			}
		case <-ctx.Done():
			return errNoEcho
		}
	}
}

// canRead tells whether rows can be read: jobprogress may not be installed, or not for this role.
func (b *Bus) canRead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := b.Store.Snapshot(ctx, nil)
	return err
}
