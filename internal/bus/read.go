package bus

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

const (
	// readLimit is how many jobs one statement reads. A new subscriber waits for the one under way, not for a whole
	// backstop.
	readLimit = 1000
	// answerTimeout is how long a statement may take before the connection is taken for dead. The database itself gives
	// up each after store.StatementTimeout.
	answerTimeout = 2 * store.StatementTimeout
	// closeTimeout bounds the farewell to a session.
	closeTimeout = time.Second
	// tickInterval is how often the reader looks at how much is notified.
	tickInterval = 25 * time.Millisecond
	// probeAfter is how many notifications are worth a probe before the next is due: it shows what each costs.
	probeAfter = 50
)

// reader reads what the hub wants, one statement after another, over a session of its own, and decides what is notified.
// All of it is done by one goroutine.
type reader struct {
	config  Config
	feed    hub.Feed
	state   *listenState
	metrics metrics
	health  *health
	backoff *backoff.ExponentialBackOff
	poller  poller
	lists   lists
	session // the present one

	unread, locked, silent rate.Sometimes // lines of the log that could be many
}

// session is what is known of the reader's session, and goes with it.
type session struct {
	conn     *pgx.Conn
	prepared bool  // a probe has come back, so the session is a direct one, and reads
	lacks    error // what is wrong with what is installed
	listen   int   // the LISTEN since which all topics were wanted
	probe    probe
	gate     gate
	pace     *pace
	unprobed int       // notifications since the last probe
	answered time.Time // the last read, or the session was found alive
	backstop time.Time
}

func newReader(c Config, state *listenState, m metrics) *reader {
	return &reader{
		config:  c,
		feed:    c.Hub.Feed(),
		state:   state,
		metrics: m,
		health:  newHealth(c.Log, c.Hub.Feed()),
		backoff: newBackoff(),
		poller:  poller{longest: c.BackstopInterval},
		unread:  rate.Sometimes{Interval: time.Minute},
		locked:  rate.Sometimes{Interval: time.Minute},
		silent:  rate.Sometimes{Interval: time.Minute},
	}
}

// run keeps one session reading until ctx ends. cut ends the listener's session.
func (r *reader) run(ctx context.Context, cut func()) {
	for {
		connected, err := r.runSession(ctx)
		r.feed.Release(every) // the locks are gone
		if ctx.Err() != nil {
			r.feed.SetDegraded("stopped")
			return
		}
		r.health.degraded(err)
		if !connected {
			r.feed.FailAll(err) // nobody waits for a database that is away
		}
		if errors.Is(err, errNoEcho) {
			cut() // either session may be the dead one
		}
		r.metrics.reconnects.WithLabelValues("read").Inc()
		sleep(ctx, r.backoff.NextBackOff())
	}
}

// every is the set of all buckets.
var every = job.Buckets{}.Complement()

// runSession connects, and reads until the session fails or ctx ends.
func (r *reader) runSession(ctx context.Context) (connected bool, err error) {
	conn, err := store.Connect(ctx, r.config.URL(), "jobprogress read")
	if err != nil {
		return false, err
	}
	defer closeSession(ctx, conn)
	now := time.Now()
	r.ask(ctx, func(ctx context.Context) error { // also where no notification ever comes; what is wrong is found later
		attachment, err := store.ReadAttachment(ctx, conn)
		r.know(attachment)
		return err
	})
	r.session = session{conn: conn, pace: newPace(now), backstop: now.Add(jitter(r.config.BackstopInterval))}
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for err == nil {
		if err = r.attend(ctx); err != nil {
			break
		}
		var wanted <-chan struct{}
		if r.prepared {
			wanted = r.feed.Wanted()
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-r.state.changed:
		case <-wanted:
			err = r.readSome(ctx)
		case <-tick.C:
			err = r.tick(ctx)
		}
	}
	return true, err
}

func closeSession(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	conn.Close(ctx)
}

// attend acts on what has become of the listener's session, and sends probes.
func (r *reader) attend(ctx context.Context) error {
	h := r.state.now()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !h.listening: // nothing is notified, so all topics are polled
		r.feed.Release(every)
		if h.reason != nil { // else it connects for the first time
			r.health.degraded(h.reason)
		}
		return nil
	case h.session != r.listen: // what was notified before is lost, and a probe with it
		r.listen, r.probe = h.session, probe{}
		r.feed.Resync()
	}
	switch {
	case r.probe.underWay && h.echoed:
		r.probe.underWay = false
		r.metrics.roundTrip.Observe(time.Since(r.probe.sent).Seconds())
		return r.proved(ctx)
	case r.probe.lost():
		return errNoEcho
	case r.probe.due():
		return r.sendProbe(ctx)
	}
	return nil
}

func (r *reader) sendProbe(ctx context.Context) error {
	measure := r.unprobed >= probeAfter // writers commit, so a commit does not hang
	r.unprobed = 0
	err := r.ask(ctx, func(ctx context.Context) error {
		queueUsage, took, err := r.probe.send(ctx, r.conn, r.state, measure)
		if err == nil {
			r.metrics.queueUsage.Set(queueUsage)
		}
		if err == nil && measure {
			r.pace.probed(took)
			r.metrics.hold.Set(r.pace.hold().Seconds())
		}
		return err
	})
	return r.survive(err) // a database that is slow is no dead session
}

// proved is called when a probe has come back.
func (r *reader) proved(ctx context.Context) error {
	begins := !r.prepared || r.lacks != nil
	err := r.ask(ctx, func(ctx context.Context) error {
		if !r.prepared {
			if err := store.Prepare(ctx, r.conn); err != nil {
				return err
			}
			r.prepared = true
		}
		attachment, err := store.CheckInstalled(ctx, r.conn, begins)
		r.know(attachment)
		return err
	})
	r.lacks = err
	if err != nil {
		return r.survive(err)
	}
	if begins {
		r.feed.Resync()
		if err := r.adjust(ctx); err != nil { // from here on items are kept
			return err
		}
	}
	r.backoff.Reset()
	r.health.live()
	return nil
}

// know gives the hub what it needs to know of the table.
func (r *reader) know(attachment store.Attachment) {
	if table := attachment.JobTable(); table.IDType != "" {
		r.feed.SetTable(table)
	}
}

// ended reports whether the session ended with the error.
func (r *reader) ended(err error) bool { return r.conn.IsClosed() || store.SessionEnded(err) }

// ask runs statements that the session must answer in time.
func (r *reader) ask(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return do(ctx)
}

// survive returns an error that ends the session. Others degrade the bus.
func (r *reader) survive(err error) error {
	if err == nil || r.ended(err) {
		return err
	}
	r.health.degraded(err)
	return nil
}

// tick does what is due: the lock set, the poll, the backstop.
func (r *reader) tick(ctx context.Context) error {
	if time.Since(r.answered) > leastInterval { // with the session the locks are gone, so nobody would notify
		if err := store.CheckAlive(ctx, r.conn); err != nil {
			return err
		}
		r.answered = time.Now()
	}
	if !r.prepared || r.lacks != nil {
		return nil
	}
	now := time.Now()
	counts := r.state.takeCounts()
	for _, n := range counts {
		r.unprobed += n
	}
	if r.unprobed >= probeAfter {
		r.probe.sendSoon()
	}
	r.metrics.toPolled.Add(float64(r.pace.tick(now, counts, r.gate.held.Buckets).Len()))
	if err := r.adjust(ctx); err != nil {
		return err
	}
	if now.After(r.backstop) {
		r.backstop = now.Add(jitter(r.config.BackstopInterval))
		if n := r.feed.Backstop(); n > 0 {
			r.metrics.unnotified.Add(float64(n))
			r.silent.Do(func() {
				r.config.Log.Warn("changes are not being notified, so viewers see them late: look for a disabled trigger, a table swapped under it, children that inherit, session_replication_role, jobprogress.notify = off", "changes", n)
			})
		}
	}
	r.pollLists(now)
	if r.poller.due(now) {
		before := r.pace.polled.Len()
		r.pace.observe(r.poller.read, r.poller.changed)
		r.pace.calm(now, r.feed.Buckets())
		r.metrics.toNotified.Add(float64(before - r.pace.polled.Len()))
		r.poller.begin(now, r.feed.Poll())
		if r.poller.jobs > 0 {
			r.metrics.polls.Inc()
		}
		r.metrics.pollInterval.Set(r.poller.interval().Seconds())
	}
	return nil
}

// adjust makes the lock set what it should be: the buckets of all topics that are not over budget.
func (r *reader) adjust(ctx context.Context) error {
	topics := r.feed.Buckets()
	wanted := store.Locks{Buckets: topics.Without(r.pace.polled), Serving: true}
	err := r.ask(ctx, func(ctx context.Context) error { return r.gate.adjust(ctx, r.conn, r.feed, wanted) })
	r.metrics.notified.Set(float64(r.gate.held.Buckets.Len()))
	r.metrics.polled.Set(float64(topics.Without(r.gate.held.Buckets).Len()))
	if refusal, ok := errors.AsType[refused](err); ok {
		r.locked.Do(func() {
			r.config.Log.Warn("locks refused, so jobs are polled and items may not be kept", "error", refusal.error, "pause", r.gate.pause)
		})
		return nil
	}
	return err
}

// readSome reads a statement's worth of jobs. Their locks are taken before, so that nothing changes unnoticed after it.
func (r *reader) readSome(ctx context.Context) error {
	if r.lacks != nil {
		r.feed.FailAll(r.lacks)
		return nil
	}
	if err := r.readSomeLists(ctx); err != nil {
		return err
	}
	if missing := r.feed.Next(readLimit).Without(r.gate.held.Buckets).Without(r.pace.polled); missing != (job.Buckets{}) {
		if err := r.adjust(ctx); err != nil {
			return err
		}
	}
	requests := r.feed.Begin(readLimit)
	failures := 0
	return r.read(ctx, requests, &failures)
}

// A read that failed is halved to find the one row of a thousand that can't be read. mostFailures bounds how many
// statements may fail in that, and mostTimeouts how many may take too long: all viewers wait meanwhile.
const (
	mostFailures = 22
	mostTimeouts = 2
)

func (r *reader) read(ctx context.Context, requests []job.Request, failures *int) error {
	if len(requests) == 0 {
		return nil
	}
	var read store.Read
	start := time.Now()
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		read, err = store.ReadJobs(ctx, r.conn, requests)
		return err
	})
	took := time.Since(start)
	r.metrics.reads.Observe(took.Seconds())
	if err == nil {
		r.answered = time.Now()
		r.metrics.jobsRead.Add(float64(len(requests)))
		var notified job.Buckets
		if h := r.state.now(); h.listening && h.session == r.listen { // since before the read
			notified = r.gate.notified(read.XMin)
		}
		r.poller.observe(requests, r.feed.Finish(read.Jobs, read.Seen, notified), took)
		return nil
	}
	switch {
	case r.ended(err) && len(requests) == 1: // the read may be what ended it
		r.feed.Fail(requests, err)
		return err
	case r.ended(err):
		r.feed.Retry(requests)
		return err
	}
	r.metrics.readsFailed.Inc()
	*failures++
	if store.TimedOut(err) {
		*failures += mostFailures/mostTimeouts - 1
	}
	if half := len(requests) / 2; half > 0 && store.MayBeOneRow(err) && *failures < mostFailures {
		if err := r.read(ctx, requests[:half], failures); err != nil {
			r.feed.Retry(requests[half:])
			return err
		}
		return r.read(ctx, requests[half:], failures)
	}
	r.feed.Fail(requests, err)
	r.unread.Do(func() {
		r.config.Log.Warn("jobs not read", "jobs", len(requests), "first", requests[0].ID, "error", err)
	})
	if !store.MayBeOneRow(err) {
		r.lacks = err // until the next probe finds nothing wrong
		return r.survive(err)
	}
	return nil
}
