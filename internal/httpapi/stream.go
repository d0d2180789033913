package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/sse"
	"jobprogress/internal/stream"
)

// getProgress answers with the stream of a job: what it is now, then what changes, until it ends.
func (a *API) getProgress(w http.ResponseWriter, r *http.Request) error {
	viewer, err := a.config.Auth.Authenticate(r)
	if err != nil {
		return err
	}
	id, table, err := a.jobID(r)
	if err != nil {
		return err
	}
	return a.serveStream(w, r, viewer, func() (stream.Source, error) { return a.oneJob(w, r, viewer, id, table) })
}

// serveStream answers with a stream of what open opens, when there is a place for it. open returns nil when it has answered
// itself.
func (a *API) serveStream(w http.ResponseWriter, r *http.Request, viewer auth.Viewer, open func() (stream.Source, error)) error {
	select {
	case <-a.draining:
		return errDraining
	default:
	}
	account, err := a.limits.acquire(viewer)
	if err != nil {
		return err
	}
	viewer.Account = account
	http.NewResponseController(w).SetWriteDeadline(time.Time{}) // until there is something to write
	jobs, err := open()
	if err != nil || jobs == nil {
		a.limits.release(account)
		return err
	}
	a.streams.Serve(w, r, stream.Request{
		Viewer:    viewer,
		Jobs:      jobs,
		Heartbeat: r.URL.Query().Get("heartbeat") == "1",
	})
	return nil
}

// oneJob opens a stream of one job, unless its viewer has seen all of it.
func (a *API) oneJob(w http.ResponseWriter, r *http.Request, viewer auth.Viewer, id job.ID, table job.Table) (stream.Source, error) {
	lastEventID := lastEventID(r)
	subscriber, err := a.subscribe(r.Context(), id, viewer)
	if errors.Is(err, errJobNotFound) && table.Deleted == job.DeletedCompleted && lastEventID != "" {
		a.sayCompleted(w, lastEventID)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if lastEventID != "" && !subscriber.Cursor(lastEventID).Known() {
		// A viewer who has seen the job elsewhere, on another server for example, may have seen more than is known here yet, and
		// must not be taken back.
		if err := refresh(r.Context(), subscriber); err != nil {
			subscriber.Close()
			return nil, err
		}
		switch account, found := subscriber.Owner(); {
		case !found && table.Deleted == job.DeletedCompleted: // since a moment ago
			subscriber.Close()
			a.sayCompleted(w, lastEventID)
			return nil, nil
		case !found || !viewer.Owns(account):
			subscriber.Close()
			return nil, errJobNotFound
		}
	}
	if subscriber.Seen(lastEventID) {
		subscriber.Close()
		a.noContent(w)
		return nil, nil
	}
	return stream.OneJob(subscriber, subscriber.Cursor(lastEventID)), nil
}

// extend gives the answer the time of a write, from now on: the request may have waited.
func (a *API) extend(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.config.WriteTimeout)) // every server of ours can
}

// noContent is the answer after which EventSource does not come back.
func (a *API) noContent(w http.ResponseWriter) {
	a.extend(w)
	w.Header().Set("Cache-Control", "no-store") // the job may be started again
	w.WriteHeader(http.StatusNoContent)
}

// sayCompleted answers a viewer who comes back to a job whose row is gone, where rows are deleted when their job has
// succeeded. A viewer who was sent another end keeps that one. A job that is not the viewer's looks the same.
func (a *API) sayCompleted(w http.ResponseWriter, lastEventID string) {
	if hub.IsFinal(lastEventID) {
		a.noContent(w)
		return
	}
	a.extend(w)
	stream.SetHeader(w.Header())
	w.Write(append(sse.AppendID(nil, hub.Completed.ID), hub.Completed.Data...))
}

// grace is how long a stream request waits for a job that is not there, or not the viewer's: pages open the stream while
// the row is still being inserted, and EventSource never comes back from a 404.
const grace = 3 * time.Second

// subscribe subscribes to the viewer's job, and waits for it. A job of somebody else's looks like none, in time too.
func (a *API) subscribe(ctx context.Context, id job.ID, viewer auth.Viewer) (*hub.Subscriber, error) {
	deadline := time.NewTimer(grace)
	defer deadline.Stop()
	var expired <-chan time.Time
	if !viewer.Expires.IsZero() {
		timer := time.NewTimer(time.Until(viewer.Expires))
		defer timer.Stop()
		expired = timer.C
	}
	for last := false; ; {
		subscriber, err := a.open(ctx, id)
		if err != nil {
			return nil, err
		}
		if last {
			err = refresh(ctx, subscriber) // whom we send away never comes back
		}
		owned := func() bool {
			account, found := subscriber.Owner()
			return found && viewer.Owns(account)
		}
		switch {
		case err != nil:
		case owned():
			if viewer.Expires.IsZero() || time.Now().Before(viewer.Expires) {
				return subscriber, nil
			}
			err = errExpired
		case last:
			err = errJobNotFound
		default:
			news := subscriber.Changed()
			if owned() {
				break // since a moment ago
			}
			select {
			case <-news:
			case <-deadline.C:
				last = true
			case <-expired:
				err = errExpired
			case <-a.draining:
				err = errDraining
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		subscriber.Close()
		if err != nil {
			return nil, err
		}
	}
}

// errExpired is that the credentials ended while their stream waited to begin.
var errExpired = fmt.Errorf("%w: they have just expired", auth.ErrInvalid)

// open subscribes to a job. What does not answer in time is unavailable.
func (a *API) open(ctx context.Context, id job.ID) (*hub.Subscriber, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return a.config.Hub.Subscribe(ctx, id)
}

// refresh has the row of a subscriber read, so that what is said of it is said of the row as it is now.
func refresh(ctx context.Context, s *hub.Subscriber) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return s.Refresh(ctx)
}

// lastEventID is what EventSource sends when it comes back. A page that makes a new EventSource can only say it in
// the URL.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("lastEventId")
}
