// Package httpapi is what browsers and operators reach: the stream, the JSON state, health and metrics. It stands
// between the hub and the network, and knows no database.
package httpapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// Config is what an API needs. AllowedOrigins may be empty, all other fields are required.
type Config struct {
	Hub  *hub.Hub
	Jobs Reader
	Auth Authenticator

	AllowedOrigins       []string      // foreign origins, exact, that may read
	PingInterval         time.Duration // between pings on a silent stream
	WriteTimeout         time.Duration // after which a viewer that does not read is cut off
	MaxStreams           int
	MaxStreamsPerAccount int

	Log      *slog.Logger
	Registry *prometheus.Registry
}

// Reader reads rows for the JSON state: one Snapshot for each id.
type Reader interface {
	Snapshot(ctx context.Context, ids []job.ID) ([]job.Snapshot, error)
}

// Authenticator tells who sends a request. Its errors wrap auth.ErrMissing or auth.ErrInvalid.
type Authenticator interface {
	Authenticate(r *http.Request) (auth.Viewer, error)
}

// API serves a hub over HTTP.
type API struct {
	Config
	metrics  metrics
	limits   *limits
	crowd    crowd
	draining chan struct{} // closed by Drain
	drain    sync.Once
	spread   time.Duration // over which Drain ends the streams
	troubled rate.Sometimes
}

// New makes an API.
func New(c Config) *API {
	return &API{
		Config:   c,
		metrics:  newMetrics(c.Registry),
		limits:   newLimits(c.MaxStreams, c.MaxStreamsPerAccount),
		draining: make(chan struct{}),
		troubled: rate.Sometimes{Interval: time.Minute},
	}
}

// Handler is the public surface, all of it.
func (a *API) Handler() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle(streamPattern, a.handle(a.getProgress, http.MethodGet))
	mux.Handle("/api/jobs/{id}", a.handle(a.getJob, http.MethodGet, http.MethodHead))
	mux.Handle("/healthz", a.handle(a.getHealth, http.MethodGet, http.MethodHead))
	mux.Handle("/readyz", a.handle(a.getReadiness, http.MethodGet, http.MethodHead))
	mux.Handle("/", a.handle(func(http.ResponseWriter, *http.Request) error { return errNoRoute }))
	checked, err := a.checkOrigin(mux)
	if err != nil {
		return nil, err
	}
	return a.hurry(checked), nil
}

// streamPattern is where the streams are.
const streamPattern = "/api/jobs/{id}/progress"

// hurry bounds the time in which a client sends a body that nobody wants, and takes its answer. Streams set a deadline
// of their own for each write.
func (a *API) hurry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w) // every server of ours can set deadlines
		var err error
		if r.ContentLength != 0 {
			control.SetReadDeadline(time.Now().Add(a.WriteTimeout))
			_, err = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
			if err == nil {
				control.SetReadDeadline(time.Time{})
			}
		}
		control.SetWriteDeadline(time.Now().Add(a.WriteTimeout))
		if err != nil {
			w.Header().Set("Connection", "close")
			a.refuse(w, r, errBody)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxBody is how much of a body is passed over, in bytes.
const maxBody = 64 << 10

// Admin is the operator's surface.
func (a *API) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{Registry: a.Registry}))
	// Not cmdline: a flag may be a secret.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.Handle("/debug/pprof/cmdline", http.NotFoundHandler())
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
