// Package bus is the PostgreSQL end of the flow. It listens, decodes what is notified and hands it to the hub; it
// proves to itself that it hears; it keeps the database from notifying what nobody watches; and it reads the rows that
// the hub asks for. Everything that repairs is that one read: a first watcher, a new LISTEN, the slow backstop, the
// short cycle of what changes too fast to be told.
package bus

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"jobprogress/internal/hub"
	"jobprogress/internal/store"
)

// Channel is the one that the trigger notifies.
const Channel = "jobprogress"

// Config is what a Bus needs. All fields are required.
type Config struct {
	ListenURL        string        // of a direct session to the primary
	Store            *store.Store  // a pool of its own with two connections: one reads, one probes
	Hub              *hub.Hub      // is fed by this bus alone
	BackstopInterval time.Duration // within which every topic is read again
	Log              *slog.Logger
	Registry         prometheus.Registerer
}

// Bus connects one database to one hub.
type Bus struct {
	Config
	metrics metrics

	backoff *backoff.ExponentialBackOff // between attempts to listen; the listener's

	garbage, strange, troubled, unread, refused rate.Sometimes // lines of the log that could be many

	listening chan struct{}          // holds a token when a LISTEN is new, or the key may be
	expected  atomic.Pointer[string] // the probe under way
	echo      chan struct{}          // holds a token when that came back
	sealKey   atomic.Pointer[[]byte] // of the notices; empty until it is read

	orders  chan order // for the session that listens
	last    order      // the reader's, of them
	tended  atomic.Pointer[tended]
	pause   time.Duration // the session's, or the next one's: without locks, which the database refused; 0 if it did not
	resume  time.Time     // when the pause ends
	load    load
	changes changes // that the reader found
	cost    cost    // the reader's

	mu      sync.Mutex
	session net.Conn // the one that listens, or nil
	waiting bool     // it does nothing else
	attempt int      // to listen; the present session's
	proven  bool     // the present session hears
	trouble string   // what was said last of why it does not
}

// New makes a Bus. It does nothing before Run.
func New(c Config) *Bus {
	b := &Bus{
		Config:  c,
		metrics: newMetrics(c.Registry, c.Hub),
		// A database that is back is heard again within 2.25 s, also after a long time away.
		backoff: &backoff.ExponentialBackOff{
			InitialInterval:     100 * time.Millisecond,
			RandomizationFactor: 0.5,
			Multiplier:          2,
			MaxInterval:         1500 * time.Millisecond,
		},
		garbage:   rate.Sometimes{Interval: time.Minute},
		strange:   rate.Sometimes{Interval: time.Minute},
		troubled:  rate.Sometimes{Interval: time.Minute},
		unread:    rate.Sometimes{Interval: time.Minute},
		refused:   rate.Sometimes{Interval: time.Minute},
		listening: make(chan struct{}, 1),
		echo:      make(chan struct{}, 1),
		orders:    make(chan order, 1),
	}
	b.sealKey.Store(new([]byte))
	b.tended.Store(new(tended))
	b.load.changes = &b.changes
	return b
}

// Run works until ctx ends, whatever becomes of the database meanwhile. It returns nil.
func (b *Bus) Run(ctx context.Context) error {
	defer b.Hub.SetLive(false)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { b.listen(ctx); return nil })
	g.Go(func() error { b.probe(ctx); return nil })
	g.Go(func() error { b.read(ctx); return nil })
	return g.Wait()
}

// live is said by the probe, and degraded by whoever notices first. Each change is one line of the log, also from one
// failure to another; the same failure is told once a minute.
func (b *Bus) live(attempt int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if attempt != b.attempt || b.session == nil {
		return // what was proven is gone
	}
	b.proven = true
	if live, _ := b.Hub.Live(); !live {
		b.Hub.SetLive(true)
		b.Log.Info("bus live", "channel", Channel)
	}
}

func (b *Bus) degraded(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if live, _ := b.Hub.Live(); live {
		b.Hub.SetLive(false)
		b.trouble = err.Error()
		b.Log.Warn("bus degraded", "error", err)
		return
	}
	say := func() { b.Log.Warn("bus not live", "error", err) }
	if text := err.Error(); text != b.trouble { // the database is there again, but as a standby for example
		b.trouble = text
		say()
		return
	}
	b.troubled.Do(say)
}

// sleep waits for d or the end of ctx, and tells whether it was d.
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
