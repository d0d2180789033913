package bus

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"jobprogress/internal/hub"
)

// Channel is the one that the triggers notify.
const Channel = "jobprogress"

// Config is what a Bus needs. All fields are required.
type Config struct {
	URL              func() string // of direct sessions to the primary, or through a pooler in session mode; asked for each
	Hub              *hub.Hub      // this bus alone calls its Feed
	BackstopInterval time.Duration // within which every topic is read again
	Log              *slog.Logger
	Registry         prometheus.Registerer
}

// Bus connects one database to one hub.
type Bus struct {
	listener *listener
	reader   *reader
	sweeper  *sweeper
	checker  *checker
}

// New makes a Bus. It does nothing before Run.
func New(c Config) *Bus {
	m := newMetrics(c.Registry, c.Hub)
	state := newListenState()
	return &Bus{
		listener: &listener{config: c, state: state, metrics: m, backoff: newBackoff()},
		reader:   newReader(c, state, m),
		sweeper:  &sweeper{config: c, metrics: m},
		checker:  &checker{config: c, findings: m.findings},
	}
}

// Run works until ctx ends, whatever becomes of the database meanwhile. It returns nil.
func (b *Bus) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { b.listener.run(ctx); return nil })
	g.Go(func() error { b.reader.run(ctx, b.listener.cut); return nil })
	g.Go(func() error { b.sweeper.run(ctx); return nil })
	g.Go(func() error { b.checker.run(ctx); return nil })
	return g.Wait()
}

// newBackoff is the wait between attempts to connect: a database that is back is connected again within 2.25 s, also after a
// long time away.
func newBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     100 * time.Millisecond,
		RandomizationFactor: 0.5,
		Multiplier:          2,
		MaxInterval:         1500 * time.Millisecond,
	}
}

// sleep waits for d or the end of ctx, and reports whether it was d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter returns between four fifths of d and d, so that replicas started together do not stay together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }
