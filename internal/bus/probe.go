package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A probe is a notification to oneself, sent over another connection. That it comes back is the only proof that
// notices are heard: not with a transaction pooler in between, a connection that is dead without having been closed,
// a primary that no longer is one, or a handler that hangs.
const (
	probeInterval = 5 * time.Second
	probeTimeout  = 3 * time.Second // found and mended within two intervals
)

var errNoEcho = errors.New("probe did not come back: the connection is dead, or LISTEN_DATABASE_URL is no direct session to the primary but goes through a transaction pooler")

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
		for again := true; again && ctx.Err() == nil; {
			again = b.probeOnce(ctx)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// probeOnce sends a probe and waits for it. It asks for another one when meanwhile the session became another.
func (b *Bus) probeOnce(ctx context.Context) (again bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	b.mu.Lock()
	attempt := b.attempt
	b.mu.Unlock()
	nonce := rand.Text()
	b.expected.Store(&nonce)
	select {
	case <-b.echo: // of an earlier one
	default:
	}
	start := time.Now()
	queueUsage, err := b.Store.Notify(ctx, Channel, `{"kind":"probe","probe":"`+nonce+`"}`)
	if err != nil {
		b.degraded(fmt.Errorf("send probe: %w", err))
		if _, refused := errors.AsType[*pgconn.PgError](err); !refused { // else the server is there, and may well be heard
			b.cut()
		}
		return false
	}
	b.metrics.queueUsage.Set(queueUsage)
	select {
	case <-b.echo:
		b.metrics.roundTrip.Observe(time.Since(start).Seconds())
	case <-b.listening:
		return true
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			b.degraded(errNoEcho)
			b.cut()
		}
		return false
	}
	// Heard but not read: jobprogress may not be installed, or not for this role. The key may be new since then.
	key, err := b.Store.SealKey(ctx)
	if err != nil {
		b.degraded(err)
		return false
	}
	b.sealKey.Store(&key)
	b.live(attempt)
	return false
}
