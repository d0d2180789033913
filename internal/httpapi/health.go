package httpapi

import (
	"context"
	"io"
	"net/http"
	"time"
)

// getHealth says that the process serves.
func (a *API) getHealth(w http.ResponseWriter, _ *http.Request) error {
	return say(w, "ok\n")
}

// getReadiness says that the server can answer viewers: the bus has proven once that it hears the database, and no stop
// is near. A database that is away later does not make it unready: its answers keep EventSource alive, and those of a
// load balancer without a server would not.
func (a *API) getReadiness(w http.ResponseWriter, _ *http.Request) error {
	if a.leaving.Load() {
		return errDraining
	}
	status, _ := a.config.Hub.Status()
	switch {
	case status.Live:
		return say(w, "ready\n")
	case status.Proven:
		return say(w, "ready, degraded: "+status.Reason+"\n")
	}
	notReady := errDatabaseUnavailable
	notReady.Detail = status.Reason
	return notReady
}

func say(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, text)
	return nil
}

// Leave turns readiness off, so that load balancers send no more requests here. Those that come are still answered.
func (a *API) Leave() { a.leaving.Store(true) }

// Drain turns readiness off, refuses new streams, and has each open one end at a moment of its own within spread, so
// that viewers come back elsewhere one after another. It returns when none is open, or with the error of ctx.
func (a *API) Drain(ctx context.Context, spread time.Duration) error {
	a.Leave()
	a.drain.Do(func() {
		close(a.draining)
		a.streams.Drain(spread)
	})
	select {
	case <-a.limits.idle():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
