package httpapi

import (
	"context"
	"errors"
	"fmt"
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
	id, table, err := a.jobID(r)
	if err != nil {
		return err
	}
	control, release, err := a.admit(w, viewer)
	if err != nil {
		return err
	}
	defer release()
	lastEventID := lastEventID(r)
	subscriber, err := a.subscribe(r.Context(), id, viewer)
	if errors.Is(err, errJobNotFound) && table.Deleted == job.DeletedCompleted && lastEventID != "" {
		return a.sayCompleted(w, control, lastEventID)
	}
	if err != nil {
		return err
	}
	defer subscriber.Close()
	if lastEventID != "" && !subscriber.Cursor(lastEventID).Known() {
		// Who has seen the job elsewhere, on another server for example, may have seen more than is known here yet, and
		// must not be taken back.
		if err := refresh(r.Context(), subscriber); err != nil {
			return err
		}
		switch account, found, _ := subscriber.Owner(); {
		case !found && table.Deleted == job.DeletedCompleted: // since a moment ago
			return a.sayCompleted(w, control, lastEventID)
		case !found || !viewer.Owns(account):
			return errJobNotFound
		}
	}
	if subscriber.Seen(lastEventID) {
		control.SetWriteDeadline(time.Now().Add(a.WriteTimeout))
		noContent(w)
		return nil
	}
	a.stream(w, r, control, viewer, &oneJob{subscriber, viewer, subscriber.Cursor(lastEventID)})
	return nil
}

// admit takes a place for a stream, without a deadline until there is something to write. The caller releases it.
func (a *API) admit(w http.ResponseWriter, viewer auth.Viewer) (control *http.ResponseController, release func(), err error) {
	select {
	case <-a.draining:
		return nil, nil, errDraining
	default:
	}
	if release, err = a.limits.acquire(viewer); err != nil {
		return nil, nil, err
	}
	control = http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Time{}); err != nil {
		release()
		return nil, nil, err
	}
	return control, release, nil
}

// stream answers with a stream, until it ends.
func (a *API) stream(w http.ResponseWriter, r *http.Request, control *http.ResponseController, viewer auth.Viewer, jobs source) {
	streamHeader(w)
	s := &stream{
		api:     a,
		writer:  writer{w: w, rc: control, timeout: a.WriteTimeout, metrics: a.metrics},
		source:  jobs,
		viewer:  viewer,
		request: r,
		named:   r.URL.Query().Get("heartbeat") == "1",
		live:    true,
	}
	a.metrics.opened.Inc()
	a.metrics.open.Inc()
	defer a.metrics.open.Dec()
	a.metrics.ended.WithLabelValues(s.run(r.Context())).Inc()
	s.writer.setDeadline() // the end of the answer is a write too
}

// source is what a stream shows.
type source interface {
	// next returns what the viewer has not seen, why the stream ends with it ("" if it goes on), and what is ready when
	// there is more.
	next() (frames []hub.Frame, end string, more <-chan struct{})
}

// oneJob is the source of a stream of one job.
type oneJob struct {
	subscriber *hub.Subscriber
	viewer     auth.Viewer
	cursor     hub.Cursor
}

func (o *oneJob) next() (frames []hub.Frame, end string, more <-chan struct{}) {
	batch := o.subscriber.Changes(o.cursor)
	if !o.viewer.Owns(batch.Account) {
		return nil, endNotOwner, nil
	}
	o.cursor = batch.Cursor
	switch batch.End {
	case hub.Final:
		end = endFinal
	case hub.Gone:
		end = endGone
	}
	return batch.Frames, end, batch.Changed
}

// noContent is the answer after which EventSource does not come back.
func noContent(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store") // the job may be started again
	w.WriteHeader(http.StatusNoContent)
}

func streamHeader(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", sse.ContentType)
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
}

// sayCompleted answers a viewer who comes back to a job whose row is gone, where rows are deleted when their job has
// succeeded. Who was sent another end keeps that one. A job that is not the viewer's looks the same.
func (a *API) sayCompleted(w http.ResponseWriter, control *http.ResponseController, lastEventID string) error {
	control.SetWriteDeadline(time.Now().Add(a.WriteTimeout))
	if hub.IsFinal(lastEventID) {
		noContent(w)
		return nil
	}
	streamHeader(w)
	out := writer{w: w, rc: control, timeout: a.WriteTimeout, metrics: a.metrics}
	out.frames([]hub.Frame{hub.Completed}, true)
	out.flush()
	return nil
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
		account, found, news := subscriber.Owner()
		if err == nil && found && viewer.Owns(account) {
			if viewer.Expires.IsZero() || time.Now().Before(viewer.Expires) {
				return subscriber, nil
			}
			err = errExpired
		}
		if err == nil && last {
			err = errJobNotFound
		}
		if err == nil {
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
	return a.Hub.Subscribe(ctx, id)
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

// Why a stream ended, as the metrics name it.
const (
	endFinal    = "final"     // the job completed or failed
	endGone     = "gone"      // the job was deleted
	endNotOwner = "not_owner" // the job is another account's now
	endExpired  = "expired"   // the credentials ended
	endAged     = "aged"      // it was open for as long as streams may be
	endRevoked  = "revoked"   // the credentials are not valid any more
	endDrained  = "drained"   // the server stops
	endClient   = "client"    // the viewer went away, or the kernel gave it up
	endStalled  = "stalled"   // the viewer does not read
)

var ends = []string{endFinal, endGone, endNotOwner, endExpired, endAged, endRevoked, endDrained, endClient, endStalled}

// stream is one viewer.
type stream struct {
	api     *API
	writer  writer
	source  source
	viewer  auth.Viewer
	request *http.Request
	named   bool // wants named events: heartbeat and bus
	live    bool // what it was sent of the bus; silence means live
}

// How long a viewer waits before it comes back: after a cut, when all do so at once, and after an end of the server's own
// choice.
const (
	cutLeast, cutSpread = time.Second, 2 * time.Second
	endLeast, endSpread = 100 * time.Millisecond, 400 * time.Millisecond
)

// silence is how long a stream says nothing before a ping. It is less than the interval, because some proxies cut what is
// silent for exactly so long.
func silence(interval time.Duration) time.Duration {
	return interval*8/10 + rand.N(interval/10+1)
}

// run writes the stream, and returns why it ended.
func (s *stream) run(ctx context.Context) string {
	s.writer.retry(cutLeast + rand.N(cutSpread))
	if s.named {
		s.writer.heartbeat(s.api.PingInterval)
	}
	end := s.follow(ctx)
	switch end {
	case endExpired, endAged, endDrained, endRevoked:
		s.writer.retry(endLeast + rand.N(endSpread))
		s.writer.flush() // that it ends is all there is to say
	}
	return end
}

// follow writes all that is newer than the cursor and sleeps until there is more. It returns why it ended.
func (s *stream) follow(ctx context.Context) string {
	ping := time.NewTimer(silence(s.api.PingInterval))
	defer ping.Stop()
	var expired, aged, drained, recheck <-chan time.Time
	if !s.viewer.Expires.IsZero() {
		timer := time.NewTimer(time.Until(s.viewer.Expires))
		defer timer.Stop()
		expired = timer.C
	}
	if s.api.MaxStreamAge > 0 {
		timer := time.NewTimer(jitter(s.api.MaxStreamAge))
		defer timer.Stop()
		aged = timer.C
	}
	if s.viewer.Revocable {
		recheck = time.After(jitter(s.api.RecheckInterval))
	}
	draining := s.api.draining
	verdict := make(chan bool, 1)

	for first := true; ; first = false {
		frames, end, more := s.source.next()
		if end == endNotOwner {
			return end
		}
		status, statusChanged := s.api.Hub.Status()
		if s.named && status.Live != s.live {
			s.writer.bus(status.Live)
			s.live = status.Live
		}
		s.writer.frames(frames, first) // after all else: nothing follows a final frame
		wrote, err := s.writer.flush()
		if err == nil && first && end == "" {
			// In a write of its own: some scanners hold back what comes first until there is more.
			s.writer.ping()
			_, err = s.writer.flush()
		}
		switch {
		case errors.Is(err, errStalled):
			return endStalled
		case err != nil:
			return endClient
		case end != "":
			return end
		case wrote:
			ping.Reset(silence(s.api.PingInterval))
		}

		select {
		case <-more:
		case <-statusChanged:
		case <-ping.C:
			s.writer.ping()
			if s.named {
				s.writer.heartbeat(s.api.PingInterval)
			}
		case <-draining:
			draining = nil
			timer := time.NewTimer(rand.N(s.api.spread + 1))
			defer timer.Stop()
			drained = timer.C
		case <-drained:
			return endDrained
		case <-expired:
			return endExpired
		case <-aged:
			return endAged
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
