package stream

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/sse"
)

// Config is what a Set needs. MaxAge may be 0, all other fields are required.
type Config struct {
	Hub *hub.Hub

	PingInterval    time.Duration // within which a silent stream gets a ping
	RecheckInterval time.Duration // within which the credentials of an open stream are verified again
	WriteTimeout    time.Duration // after which a viewer that does not read is cut off
	MaxAge          time.Duration // after which a stream ends and its viewer comes back; 0 is never

	Release func(account string) // gives a stream's place back

	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Set is the open streams. Its methods may be called from any goroutine.
type Set struct {
	config  Config
	metrics metrics
	loops   []*loop
	next    atomic.Uint64 // counts streams, to deal them out
}

// New makes a Set without streams.
func New(c Config) *Set {
	s := &Set{config: c, metrics: newMetrics(c.Registry)}
	for range runtime.GOMAXPROCS(0) {
		s.loops = append(s.loops, newLoop(s))
	}
	return s
}

// Run serves the streams until ctx ends, and cuts those that are still open then.
func (s *Set) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.loops {
		g.Go(func() error { return l.run(ctx) })
	}
	return g.Wait()
}

// Drain ends each stream, open or yet to be opened, at a moment of its own within spread, so that viewers come back
// elsewhere one after another.
func (s *Set) Drain(spread time.Duration) {
	for _, l := range s.loops {
		l.do(func() { l.drain(spread) })
	}
}

// Request is a stream that is asked for.
type Request struct {
	Viewer    auth.Viewer
	Jobs      Source
	Heartbeat bool // it wants named events: heartbeat and bus
}

// Serve answers a request with a stream. It returns when net/http has nothing more to do for it: at once where the socket is
// taken over, else at the end of the stream. Config.Release is called when the stream has ended.
func (s *Set) Serve(w http.ResponseWriter, r *http.Request, request Request) {
	SetHeader(w.Header())
	l := s.loops[s.next.Add(1)%uint64(len(s.loops))]
	viewer := request.Viewer
	one := &stream{
		source:  request.Jobs,
		account: viewer.Account,
		anyone:  viewer.Anyone,
		recheck: viewer.Recheck,
		named:   request.Heartbeat,
		live:    true,
		placed:  true,
	}
	s.metrics.opened.Inc()
	s.metrics.open.Inc()
	if !takeOver(w, r, l, one, viewer.Expires) {
		serveHandler(w, r, l, one, viewer.Expires)
	}
}

// abandon gives back what a stream holds that was not opened.
func (l *loop) abandon(s *stream, why end) {
	s.source.close(l)
	l.set.metrics.end(why)
	l.release(s)
}

// SetHeader sets the header of a stream.
func SetHeader(header http.Header) {
	header.Set("Content-Type", sse.ContentType)
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
}

// jitter returns between four fifths of d and d, so that streams opened together are not checked together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }
