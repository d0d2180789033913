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
