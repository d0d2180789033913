package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// getProgress answers with the stream of a job: what it is now, then what changes, until it ends.
func (a *API) getProgress(w http.ResponseWriter, r *http.Request) error {
	viewer, err := a.Auth.Authenticate(r)
	if err != nil {
		return err
	}
	id, err := job.ParseID(r.PathValue("id"))
	if err != nil {
		return errInvalidJobID
	}
	select {
	case <-a.draining:
		return errDraining
	default:
	}
	release, err := a.limits.acquire(viewer)
	if err != nil {
		return err
	}
	defer release()

	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	subscriber, err := a.Hub.Subscribe(ctx, id)
	if err != nil {
		return err
	}
	defer subscriber.Close()
	lastEventID := lastEventID(r)
	elsewhere := lastEventID != "" && !subscriber.Cursor(lastEventID).Known()
	if elsewhere || !viewer.Owns(subscriber.Account()) {
		// Who has seen the job elsewhere, on another server for example, may have seen more than is known here yet, and
		// must not be taken back. Whom we send away, or whose job has ended, never comes back: so that is said of the row
		// as it is now.
		if err := subscriber.Refresh(ctx); err != nil {
			return err
		}
	}
	if !viewer.Owns(subscriber.Account()) {
		return errJobNotFound
	}
	if subscriber.Seen(lastEventID) {
		w.Header().Set("Cache-Control", "no-store") // the job may be started again
		w.WriteHeader(http.StatusNoContent)
		return nil
	}

	header := w.Header()
	header.Set("Content-Type", sse.ContentType)
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	s := &stream{
		api:        a,
		writer:     writer{w: w, rc: http.NewResponseController(w), timeout: a.WriteTimeout, metrics: a.metrics},
		subscriber: subscriber,
		viewer:     viewer,
		request:    r,
		cursor:     subscriber.Cursor(lastEventID),
		named:      r.URL.Query().Get("heartbeat") == "1",
		live:       true,
	}
	a.metrics.opened.Inc()
	a.metrics.open.Inc()
	defer a.metrics.open.Dec()
	a.metrics.ended.WithLabelValues(s.run(r.Context())).Inc()
	s.writer.setDeadline() // the end of the answer is a write too
	return nil
}

// lastEventID is what EventSource sends when it comes back. A page that makes a new EventSource can only say it in
// the URL.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("lastEventId")
}

// Why a stream ended, as the metrics name it.
const (
	endFinal    = "final"     // the job completed or failed
	endGone     = "gone"      // the job was deleted
	endNotOwner = "not_owner" // the job is another account's now
	endExpired  = "expired"   // the credentials ended
	endRevoked  = "revoked"   // the credentials are not valid any more
	endDrained  = "drained"   // the server stops
	endClient   = "client"    // the viewer went away, or the kernel gave it up
	endStalled  = "stalled"   // the viewer does not read
)

var ends = []string{endFinal, endGone, endNotOwner, endExpired, endRevoked, endDrained, endClient, endStalled}

// stream is one viewer of one job.
type stream struct {
	api        *API
	writer     writer
	subscriber *hub.Subscriber
	viewer     auth.Viewer
	request    *http.Request
	cursor     hub.Cursor
	named      bool // wants named events: heartbeat and bus
	live       bool // what it was sent of the bus; silence means live
}

// retryLeast and retrySpread bound the time after which a viewer comes back that was cut off.
const (
	retryLeast  = time.Second
	retrySpread = 2 * time.Second
)

// run writes all that is newer than the cursor and sleeps until there is more. It returns why it ended.
func (s *stream) run(ctx context.Context) string {
	ping := time.NewTimer(s.api.PingInterval)
	defer ping.Stop()
	var expired, drained <-chan time.Time
	if !s.viewer.Expires.IsZero() {
		timer := time.NewTimer(time.Until(s.viewer.Expires))
		defer timer.Stop()
		expired = timer.C
	}
	draining := s.api.draining
	var recheck <-chan time.Time
	if s.viewer.Revocable {
		recheck = time.After(jitter(s.api.RecheckInterval))
	}
	verdict := make(chan bool, 1)

	s.writer.retry(retryLeast + rand.N(retrySpread))
	for first := true; ; first = false {
		batch := s.subscriber.Changes(s.cursor)
		if !s.viewer.Owns(batch.Account) {
			return endNotOwner
		}
		status, statusChanged := s.api.Hub.Status()
		if s.named && status.Live != s.live {
			s.writer.bus(status.Live)
			s.live = status.Live
		}
		s.writer.frames(batch.Frames, first) // after all else: nothing follows a final frame
		s.cursor = batch.Cursor
		if wrote, err := s.writer.flush(); err != nil {
			if errors.Is(err, errStalled) {
				return endStalled
			}
			return endClient
		} else if wrote {
			ping.Reset(s.api.PingInterval)
		}
		switch batch.End {
		case hub.Final:
			return endFinal
		case hub.Gone:
			return endGone
		}

		select {
		case <-batch.Changed:
		case <-statusChanged:
		case <-ping.C:
			s.writer.ping(s.named)
		case <-draining:
			draining = nil
			timer := time.NewTimer(rand.N(s.api.spread + 1))
			defer timer.Stop()
			drained = timer.C
		case <-drained:
			return endDrained
		case <-expired:
			return endExpired
		case <-recheck:
			go func() { verdict <- s.revoked() }() // it may take its time, and ends with the request
		case revoked := <-verdict:
			if revoked {
				return endRevoked
			}
			recheck = time.After(jitter(s.api.RecheckInterval))
		case <-ctx.Done():
			return endClient
		}
	}
}

// revoked reports whether the credentials that opened the stream would not open it now. What can't be found out now does
// not end it.
func (s *stream) revoked() bool {
	viewer, err := s.api.Auth.Authenticate(s.request)
	return errors.Is(err, auth.ErrInvalid) || errors.Is(err, auth.ErrMissing) || err == nil && viewer.Account != s.viewer.Account
}

// jitter returns between four fifths of d and d, so that streams opened together are not checked together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }
