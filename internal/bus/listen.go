package bus

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// listen keeps one session listening until ctx ends.
func (b *Bus) listen(ctx context.Context) {
	l := pgxlisten.Listener{
		Connect:        b.connect,
		ReconnectDelay: -1, // connect waits
		LogError: func(ctx context.Context, err error) {
			if ctx.Err() == nil {
				b.degraded(err)
			}
		},
	}
	l.Handle(Channel, handler{b})
	l.Listen(ctx) // its only error is that ctx has ended
}

// connect opens the session, at once the first time and after a growing, jittered wait from then on.
func (b *Bus) connect(ctx context.Context) (*pgx.Conn, error) {
	if b.proven.Swap(false) {
		b.backoff.Reset()
	}
	if b.attempts > 0 {
		b.metrics.reconnects.Inc()
		if !sleep(ctx, b.backoff.NextBackOff()) {
			return nil, ctx.Err()
		}
	}
	b.attempts++
	conn, err := store.Connect(ctx, b.ListenURL)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.session = conn.PgConn().Conn()
	return conn, nil
}

// cut ends the session that listens. A read that hangs on it fails, and listen begins anew.
func (b *Bus) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != nil {
		b.session.Close()
	}
}

// malformed is why a notice is ignored that says nothing sensible.
const malformed = "malformed"

// handler is called by the listener's goroutine, which must never wait for anybody.
type handler struct{ *Bus }

// HandleBacklog is called when LISTEN has committed: from here on nothing is missed, and what came before is unknown.
func (b handler) HandleBacklog(context.Context, string, *pgx.Conn) error {
	b.Hub.Relisten()
	select {
	case b.listening <- struct{}{}:
	default:
	}
	return nil
}

// HandleNotification takes one notice to its topic. Anybody may notify, so nothing in it is believed to be well formed.
func (b handler) HandleNotification(_ context.Context, n *pgconn.Notification, _ *pgx.Conn) error {
	notice, err := job.ParseNotice(n.Payload)
	if err != nil {
		b.metrics.ignored.WithLabelValues(malformed).Inc()
		b.garbage.Do(func() {
			b.Log.Warn("malformed notice ignored", "error", err, "payload", fmt.Sprintf("%.200q", n.Payload), "backend", n.PID)
		})
		return nil
	}
	b.metrics.received.WithLabelValues(string(notice.Kind)).Inc()
	if notice.Kind == job.KindProbe {
		select {
		case b.echo <- notice.Probe:
		default: // the probe looks for the newest only
		}
		return nil
	}
	if reason := b.Hub.Apply(notice); reason != hub.Applied {
		b.metrics.ignored.WithLabelValues(reason).Inc()
	}
	return nil
}
