// Package pgtest provides a throwaway PostgreSQL for tests and the demo: a real one, which leaves nothing behind. What tests
// put before it is in network.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running PostgreSQL.
type Server struct {
	URL  string // of the database postgres, as its superuser
	From string // where it came from, for people

	engine engine // nil when the server is somebody else's
}

// engine runs a server.
type engine interface {
	halt(ctx context.Context, immediate bool) error
	resume(ctx context.Context) error
	stop() error // for ever, and removes all of it
}

const (
	// startTimeout bounds the start of a server, with the download of an image.
	startTimeout = 3 * time.Minute
	// readyTimeout bounds the time in which a started server takes connections.
	readyTimeout = 60 * time.Second
)

// Start starts a server, or finds one: the one that TEST_DATABASE_URL names, else a container if a Docker engine
// answers, else the PostgreSQL that is installed on this machine. What does not work is passed to say, and the next is
// tried. The caller calls Stop.
func Start(ctx context.Context, say func(format string, args ...any)) (*Server, error) {
	if url := os.Getenv("TEST_DATABASE_URL"); url != "" {
		if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
			return nil, errors.New("TEST_DATABASE_URL is not like postgres://user:password@host/database")
		}
		if err := Ready(ctx, url, nil); err != nil {
			return nil, fmt.Errorf("TEST_DATABASE_URL: %w", err)
		}
		return &Server{URL: url, From: "TEST_DATABASE_URL"}, nil
	}
	return StartOwn(ctx, say)
}

// StartOwn starts a server for one test, so that it can be halted, with settings like fsync=on besides its
// own. TEST_POSTGRES_FROM, docker or installed, leaves only one of the ways.
func StartOwn(ctx context.Context, say func(format string, args ...any), settings ...string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	args := slices.Clone(ownSettings)
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	var tried []string
	for _, way := range []struct {
		name  string
		start func(context.Context, []string) (*Server, error)
	}{{"docker", startContainer}, {"installed", startProcess}} {
		if only := os.Getenv("TEST_POSTGRES_FROM"); only != "" && only != way.name {
			continue
		}
		s, err := way.start(ctx, args)
		if err == nil {
			return s, nil
		}
		say("not %s: %v", way.name, err)
		tried = append(tried, fmt.Sprintf("%s (%v)", way.name, err))
	}
	return nil, fmt.Errorf("no PostgreSQL to test with. Tried: %s. Set TEST_DATABASE_URL, start Docker, or install PostgreSQL 14 or newer (apt-get install postgresql, brew install postgresql)",
		strings.Join(tried, "; "))
}

// Stop ends the server and removes its files. One that TEST_DATABASE_URL named goes on.
func (s *Server) Stop() error {
	if s.engine == nil {
		return nil
	}
	return s.engine.stop()
}

// Halt stops the server as an outage would: fast, or immediate as in a crash. Its data stay.
func (s *Server) Halt(ctx context.Context, immediate bool) error {
	if s.engine == nil {
		return errors.New("halt: the server is not ours")
	}
	return s.engine.halt(ctx, immediate)
}

// Resume starts a halted server again, at the same address.
func (s *Server) Resume(ctx context.Context) error {
	if err := s.engine.resume(ctx); err != nil {
		return err
	}
	return Ready(ctx, s.URL, nil)
}

// Ready waits until the server takes connections. failed may say that it never will.
func Ready(ctx context.Context, url string, failed func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn.Close(ctx)
		}
		if failed != nil {
			if err := failed(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ownSettings suit a server that lives for minutes and whose data nobody will miss.
var ownSettings = []string{
	"-c", "fsync=off",
	"-c", "full_page_writes=off",
	"-c", "max_connections=200",
	"-c", "shared_buffers=32MB",
}
