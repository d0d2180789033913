// Package httpapi is what browsers and operators reach: the stream, the JSON state, health and metrics. It stands
// between the hub and the network, and knows no database.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/stream"
)

// Config is what an API needs. AllowedOrigins and MaxStreamAge may be empty, all other fields are required.
type Config struct {
	Hub  *hub.Hub
	Jobs Reader
	Auth Authenticator

	AllowedOrigins       []string      // foreign origins, exact, that may read
	PingInterval         time.Duration // within which a silent stream gets a ping
	RecheckInterval      time.Duration // within which the credentials of an open stream are verified again
	WriteTimeout         time.Duration // after which a viewer that does not read is cut off
	MaxStreamAge         time.Duration // after which a stream ends and its viewer comes back; 0 is never
	MaxStreams           int
	MaxStreamsPerAccount int

	Log      *slog.Logger
	Registry *prometheus.Registry
}

// Reader reads rows for the JSON states: one Snapshot for each id, or a list.
type Reader interface {
	Snapshot(ctx context.Context, ids []job.ID) ([]job.Snapshot, error)
	List(ctx context.Context, account string) ([]job.Snapshot, error) // of those that the account may watch now
}

// Authenticator finds out who sends a request. Its errors wrap one of package auth.
type Authenticator interface {
	Authenticate(r *http.Request) (auth.Viewer, error)
}

// API serves a hub over HTTP.
type API struct {
	config      Config
	metrics     metrics
	limits      *limits
	retryDelay  retryDelay
	leaving     atomic.Bool   // set by Leave and Drain
	draining    chan struct{} // closed by Drain
	drain       sync.Once
	streams     *stream.Set
	unavailable rate.Sometimes
}

// New makes an API.
func New(c Config) *API {
	limits := newLimits(c.MaxStreams, c.MaxStreamsPerAccount)
	return &API{
		config:   c,
		metrics:  newMetrics(c.Registry),
		limits:   limits,
		draining: make(chan struct{}),
		streams: stream.New(stream.Config{
			Hub:             c.Hub,
			PingInterval:    c.PingInterval,
			RecheckInterval: c.RecheckInterval,
			WriteTimeout:    c.WriteTimeout,
			MaxAge:          c.MaxStreamAge,
			Release:         limits.release,
			Log:             c.Log,
			Registry:        c.Registry,
		}),
		unavailable: rate.Sometimes{Interval: time.Minute},
	}
}

// Run serves the streams until ctx ends, and cuts those that are still open then. Drain ends them in good order before.
func (a *API) Run(ctx context.Context) error { return a.streams.Run(ctx) }

// Handler is the public surface, all of it.
func (a *API) Handler() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle(streamPattern, a.handle(a.getProgress, http.MethodGet))
	mux.Handle(manyPattern, a.handle(a.getManyProgress, http.MethodGet))
	mux.Handle("/api/jobs", a.handle(a.getJobs, http.MethodGet, http.MethodHead))
	mux.Handle("/api/jobs/{id}", a.handle(a.getJob, http.MethodGet, http.MethodHead))
	mux.Handle("/healthz", a.handle(a.getHealth, http.MethodGet, http.MethodHead))
	mux.Handle("/readyz", a.handle(a.getReadiness, http.MethodGet, http.MethodHead))
	mux.Handle("/", a.handle(func(http.ResponseWriter, *http.Request) error { return errNoRoute }))
	checked, err := a.checkOrigin(mux)
	if err != nil {
		return nil, err
	}
	return a.limitHeaders(a.limitTime(checked)), nil
}

// The streams: of one job, and of many.
const (
	streamPattern = "/api/jobs/{id}/progress"
	manyPattern   = "/api/jobs/progress"
)

// Admin is the operator's surface.
func (a *API) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(a.config.Registry, promhttp.HandlerOpts{Registry: a.config.Registry}))
	// Not cmdline: a flag may be a secret.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.Handle("/debug/pprof/cmdline", http.NotFoundHandler())
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
