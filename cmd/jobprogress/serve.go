package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"jobprogress/internal/bus"
	"jobprogress/internal/httpapi"
	"jobprogress/internal/hub"
	"jobprogress/internal/store"
)

type serveCommand struct {
	database
	ListenDatabaseURL string `env:"LISTEN_DATABASE_URL" secret:"" placeholder:"URL" help:"Where to listen and read: direct sessions to the primary, or a pooler in session mode, if DATABASE_URL goes through one in transaction mode. Default: DATABASE_URL."`

	Addr      string `env:"JOBPROGRESS_ADDR" default:"127.0.0.1:8080" help:"Address to serve on; port 0 picks one."`
	AdminAddr string `env:"JOBPROGRESS_ADMIN_ADDR" default:"127.0.0.1:8081" help:"Address of /metrics and /debug/pprof/; port 0 picks one."`
	TLSCert   string `env:"JOBPROGRESS_TLS_CERT" placeholder:"FILE" help:"PEM certificate chain: serve TLS with HTTP/2."`
	TLSKey    string `env:"JOBPROGRESS_TLS_KEY" placeholder:"FILE" help:"PEM key of the certificate."`

	tokens
	JWTPreviousSecret string   `env:"JOBPROGRESS_JWT_PREVIOUS_SECRET" secret:"" placeholder:"SECRET" help:"The secret before: its tokens count, too, while it is being replaced."`
	JWTPublicKey      string   `env:"JOBPROGRESS_JWT_PUBLIC_KEY" placeholder:"FILE" help:"PEM public key of RS256, ES256 (P-256) or EdDSA (Ed25519) tokens."`
	JWKSURL           string   `env:"JOBPROGRESS_JWKS_URL" name:"jwks-url" placeholder:"URL" help:"Where the public keys of the tokens are published, as a JSON Web Key Set."`
	AuthURL           string   `env:"JOBPROGRESS_AUTH_URL" name:"auth-url" placeholder:"URL" help:"Instead of tokens: the application, asked with the Cookie, Authorization and Origin of each viewer, answers 200 and {\"account\":\"...\"}, or 401."`
	SessionQuery      string   `env:"JOBPROGRESS_SESSION_QUERY" placeholder:"SQL" help:"Instead of tokens: selects the account of the session with token $$1, in the database of DATABASE_URL."`
	Cookie            string   `env:"JOBPROGRESS_COOKIE" default:"session" help:"Cookie that holds the token when there is no Authorization header."`
	InsecureNoAuth    bool     `env:"JOBPROGRESS_INSECURE_NO_AUTH" help:"No authentication: everybody sees every job. Loopback addresses only."`
	AllowedOrigins    []string `env:"JOBPROGRESS_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Foreign origins that may read, exact, comma-separated."`

	PingInterval     time.Duration `env:"JOBPROGRESS_PING_INTERVAL" default:"30s" help:"No stream is silent for longer: pings leave a little earlier."`
	BackstopInterval time.Duration `env:"JOBPROGRESS_BACKSTOP_INTERVAL" default:"15s" help:"Within this time every watched job is read again, whatever was notified."`
	WriteTimeout     time.Duration `env:"JOBPROGRESS_WRITE_TIMEOUT" default:"10s" help:"After this time a viewer that does not read is cut off."`
	DrainTimeout     time.Duration `env:"JOBPROGRESS_DRAIN_TIMEOUT" default:"10s" help:"From the end of the lame duck time to the exit, at most."`
	LameDuck         time.Duration `env:"JOBPROGRESS_LAME_DUCK" default:"5s" help:"After SIGTERM, for so long /readyz says no and everything is answered. Ctrl-C does not wait."`
	MaxStreamAge     time.Duration `env:"JOBPROGRESS_MAX_STREAM_AGE" default:"0s" help:"After this time at most a stream ends, and its viewer comes back at once; 0 is never."`

	MaxStreams           int `env:"JOBPROGRESS_MAX_STREAMS" default:"100000" help:"Open streams of this server, at most."`
	MaxStreamsPerAccount int `env:"JOBPROGRESS_MAX_STREAMS_PER_ACCOUNT" default:"100" help:"Open streams of one account, at most."`

	logging

	secretFiles map[string]string `kong:"-"` // where secrets stand in files, by their variables
}

const (
	// requestConns are for the JSON state.
	requestConns = 4
	// sessionConns look sessions up.
	sessionConns = 4
	// closeTimeout is how long a pool may take to close.
	closeTimeout = 500 * time.Millisecond
	// headerTimeout bounds the time that a client may take to say what it wants.
	headerTimeout = 10 * time.Second
	// idleTimeout ends idle connections.
	idleTimeout = 2 * time.Minute
	// pingTimeout is how long an HTTP/2 connection may be silent before it is asked for a sign of life, and how long it
	// may take to give one.
	pingTimeout = 15 * time.Second
	// maxHeader bounds what is read of the headers of a request, in bytes. It is more than proxies pass on, because over
	// HTTP/2 net/http can't refuse a longer one without ending the connection.
	maxHeader = 256 << 10
)

func (c *serveCommand) run(ctx context.Context, _, stderr io.Writer) error {
	log := c.logger(stderr)
	if c.InsecureNoAuth {
		// As an error, so that no log level hides it.
		log.Error("authentication is off: everybody who reaches this server sees every job", "addr", c.Addr)
	} else if c.JWTSecret != "" {
		warnOfShort(log, c.JWTSecret)
	}
	if unknown, err := unknownVariables(os.Environ()); err == nil && len(unknown) > 0 {
		log.Warn("variables are ignored, because there are no such settings", "variables", unknown)
	}
	files := newFiles(log)
	defer files.close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newBuildInfo())

	databaseURL := c.follow(files, "DATABASE_URL", c.DatabaseURL)
	listenURL := databaseURL
	if c.ListenDatabaseURL != "" {
		listenURL = c.follow(files, "LISTEN_DATABASE_URL", c.ListenDatabaseURL)
	}
	requestStore, err := store.Open(databaseURL, requestConns)
	if err != nil {
		return err
	}
	defer closeSoon(requestStore)

	h := hub.New(registry)
	b := bus.New(bus.Config{
		URL:              listenURL,
		Hub:              h,
		BackstopInterval: c.BackstopInterval,
		Log:              log,
		Registry:         registry,
	})
	sessionStore, err := store.Open(databaseURL, sessionConns)
	if err != nil {
		return err
	}
	defer closeSoon(sessionStore)
	authenticator, runAuth, err := c.authenticator(sessionStore, files)
	if err != nil {
		return err
	}
	api := httpapi.New(httpapi.Config{
		Hub:                  h,
		Jobs:                 requestStore,
		Auth:                 authenticator,
		RecheckInterval:      c.BackstopInterval,
		AllowedOrigins:       c.AllowedOrigins,
		PingInterval:         c.PingInterval,
		WriteTimeout:         c.WriteTimeout,
		MaxStreamAge:         c.MaxStreamAge,
		MaxStreams:           c.MaxStreams,
		MaxStreamsPerAccount: c.MaxStreamsPerAccount,
		Log:                  log,
		Registry:             registry,
	})
	handler, err := api.Handler()
	if err != nil {
		return err
	}

	listener, err := listen(c.Addr, 2*c.WriteTimeout)
	if err != nil {
		return listenError("addr", "JOBPROGRESS_ADDR", c.Addr, err)
	}
	defer listener.Close()
	adminListener, err := net.Listen("tcp", c.AdminAddr)
	if err != nil {
		return listenError("admin-addr", "JOBPROGRESS_ADMIN_ADDR", c.AdminAddr, err)
	}
	defer adminListener.Close()
	public, admin := c.server(handler, log), c.server(api.Admin(), log)
	if c.TLSCert != "" {
		pair, err := c.certificate()
		if err != nil {
			return err
		}
		certificate := reload(files, pair, c.certificate, c.TLSCert, c.TLSKey)
		public.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(), nil }}
	}
	log.Info("serving", "addr", c.url(listener), "admin", "http://"+adminListener.Addr().String())

	g, failed := errgroup.WithContext(context.Background())
	busContext, stopBus := context.WithCancel(context.Background())
	defer stopBus()
	streamContext, stopStreams := context.WithCancel(context.Background())
	defer stopStreams()
	g.Go(func() error { return b.Run(busContext) })
	g.Go(func() error { return api.Run(streamContext) })
	g.Go(func() error { return runAuth(busContext) })
	g.Go(func() error { return returnMemory(busContext) })
	g.Go(func() error { return files.run(busContext) })
	g.Go(func() error { return serve(admin.Serve(adminListener)) })
	g.Go(func() error {
		if c.TLSCert != "" {
			return serve(public.ServeTLS(listener, "", ""))
		}
		return serve(public.Serve(listener))
	})
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-failed.Done():
		}
		// Those who send viewers here must see that we leave, before we do. Then the streams go, while the bus still feeds
		// them and the listener still answers; then the rest of the requests; the bus and what an operator looks at go last.
		log.Info("stopping")
		if errors.Is(context.Cause(ctx), errTerminated) {
			api.Leave()
			pause(failed, c.LameDuck)
		}
		c.drain(api, public)
		stopStreams()
		stopBus()
		admin.Close()
		log.Info("stopped")
		return nil
	})
	return g.Wait()
}

// drain ends the streams over a spread, and then the other requests.
func (c *serveCommand) drain(api *httpapi.API, public *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), c.DrainTimeout*8/10)
	defer cancel()
	api.Drain(ctx, c.DrainTimeout*6/10)
	if public.Shutdown(ctx) != nil {
		public.Close()
	}
}

// listenError says which address can't be listened on, and what may be done.
func listenError(flag, env, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return invalidSetting(flag, env, "%s is in use: stop what listens there, or name another; port 0 picks a free one", address)
	}
	return invalidSetting(flag, env, "%s: %w", address, err)
}

// closeSoon closes a pool, but does not wait for connections to a database that hangs.
func closeSoon(s *store.Store) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}

// serve ignores the error that a server returns after Shutdown or Close.
func serve(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// server has no WriteTimeout: it would end every stream. Streams set a deadline for each write.
func (c *serveCommand) server(handler http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols,
		// The deadline of a stream can't help where the whole connection hangs, and nobody misses a viewer that is gone
		// without a word.
		HTTP2:    &http.HTTP2Config{WriteByteTimeout: c.WriteTimeout, SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func (c *serveCommand) url(l net.Listener) string {
	if c.TLSCert != "" {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}
