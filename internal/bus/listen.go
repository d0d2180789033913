package bus

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"
	"golang.org/x/time/rate"

	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// listener passes on which jobs were named. It is the handler of pgxlisten's Listener, whose session does nothing but
// listen.
type listener struct {
	config   Config
	state    *listenState
	metrics  metrics
	backoff  *backoff.ExponentialBackOff
	tried    bool           // to connect
	garbage  rate.Sometimes // lines of the log that could be many
	prepared bool           // the present session
	deadline *time.Timer    // by which LISTEN is in force

	mu      sync.Mutex
	session net.Conn // the present one, or nil
}

// run keeps one session listening until ctx ends.
func (l *listener) run(ctx context.Context) {
	l.garbage.Interval = time.Minute
	listen := pgxlisten.Listener{
		Connect:        l.connect,
		ReconnectDelay: -1, // Connect waits
		LogError:       func(_ context.Context, err error) { l.state.closed(fmt.Errorf("listen: %w", err)) },
	}
	listen.Handle(Channel, l)
	listen.Listen(ctx)
}

// connect opens the session, at once the first time and after a growing, jittered wait from then on.
func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	if l.tried {
		l.metrics.reconnects.WithLabelValues("listen").Inc()
		if !sleep(ctx, l.backoff.NextBackOff()) {
			return nil, ctx.Err()
		}
	}
	l.tried, l.prepared = true, false
	conn, err := store.Connect(ctx, l.config.URL(), "jobprogress listen")
	if err != nil {
		return nil, err
	}
	session := conn.PgConn().Conn()
	l.deadline = time.AfterFunc(answerTimeout, func() { session.Close() }) // for LISTEN, which the Listener gives none
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = session
	return conn, nil
}

// cut ends the session, which may be dead without knowing. A read that hangs on it fails, and the Listener connects anew.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		l.session.Close()
	}
}

// HandleBacklog is called when LISTEN is in force. From here on nothing is missed, and what came before is unknown.
func (l *listener) HandleBacklog(context.Context, string, *pgx.Conn) error {
	if l.deadline.Stop() {
		l.state.opened()
	}
	return nil
}

// prepare also has items kept while the reader's session is away. It reports whether that is so: a writer may try the
// lock at this moment.
func (l *listener) prepare(ctx context.Context, conn *pgx.Conn) (serving bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := store.Prepare(ctx, conn); err != nil {
		return false, err
	}
	got, _, err := store.TryLocks(ctx, conn, store.Locks{Serving: true})
	return got.Serving, err
}

// HandleNotification never waits for a viewer. Anybody may notify, so a notification is worth no more than a look at the
// row.
func (l *listener) HandleNotification(ctx context.Context, n *pgconn.Notification, conn *pgx.Conn) error {
	if !l.prepared { // notifications come, so it is a direct session, or one in session mode
		serving, err := l.prepare(ctx, conn)
		l.prepared = serving || err != nil // else once more, at the next
		if err != nil {
			l.config.Log.Warn("the listening session is not prepared", "error", err)
		}
	}
	if probe, ok := strings.CutPrefix(n.Payload, probePrefix); ok {
		l.backoff.Reset() // notifications come
		l.state.echo(probe)
		l.metrics.notifications.WithLabelValues("probe").Inc()
		return nil
	}
	table := l.config.Hub.Feed().Table()
	if table == (job.Table{}) {
		return nil // nothing has been read yet
	}
	id, err := table.IDType.Parse(n.Payload)
	switch {
	case err != nil:
		l.metrics.notifications.WithLabelValues("malformed").Inc()
		l.garbage.Do(func() {
			l.config.Log.Warn("malformed notification ignored", "payload", fmt.Sprintf("%.200q", n.Payload), "backend", n.PID)
		})
	case l.config.Hub.Feed().Want(id):
		l.state.count(table.IDType.Bucket(id))
		l.metrics.watched.Inc()
	default:
		l.state.count(table.IDType.Bucket(id))
		l.metrics.unwatched.Inc()
	}
	return nil
}
