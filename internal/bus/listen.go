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
			b.mu.Lock()
			b.session = nil
			b.mu.Unlock()
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
	b.mu.Lock()
	if b.proven {
		b.backoff.Reset()
	}
	b.proven = false
	b.attempt++
	first := b.attempt == 1
	b.mu.Unlock()
	if !first {
		b.metrics.reconnects.Inc()
		if !sleep(ctx, b.backoff.NextBackOff()) {
			return nil, ctx.Err()
		}
	}
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

// Why a notice is not believed.
const (
	malformed = "malformed" // it says nothing sensible
	unsealed  = "unsealed"  // it does not come from our functions: forged, or they have another key by now
)

// handler is called by the listener's goroutine, which must never wait for anybody.
type handler struct{ *Bus }

// HandleBacklog is called when LISTEN has committed: from here on nothing is missed, and what came before is unknown.
func (b handler) HandleBacklog(context.Context, string, *pgx.Conn) error {
	b.Store.Reset() // rows are to be read from the server that we listen to now
	b.Hub.Relisten()
	b.wakeProbe()
	return nil
}

// wakeProbe has a probe sent now.
func (b handler) wakeProbe() {
	select {
	case b.listening <- struct{}{}:
	default:
	}
}

// HandleNotification takes what was notified to the topics: this notice and all that came with it.
//
// A transaction that updates a job more than once notifies every state, and only the last is ever committed. They are
// sent together, but may arrive in pieces. So the server is asked for an answer first: it comes after all that was
// being sent.
func (b handler) HandleNotification(ctx context.Context, n *pgconn.Notification, conn *pgx.Conn) error {
	if err := conn.Ping(ctx); err != nil {
		conn.Close(ctx) // what this call was given is lost, so a new LISTEN is to have everything read
		return fmt.Errorf("wait for the rest: %w", err)
	}
	notices := make([]job.Notice, 0, 16)
	for ; n != nil; n = waiting(conn) {
		if notice, ok := b.parse(n); ok {
			notices = append(notices, notice)
		}
	}
	last := make(map[job.ID]int) // what was said last of each row
	for i, notice := range notices {
		if notice.Kind != job.KindItem {
			last[notice.Job] = i
		}
	}
	for i, notice := range notices {
		if notice.Kind != job.KindItem && last[notice.Job] != i {
			continue // overtaken, and perhaps never committed
		}
		if reason := b.Hub.Apply(notice); reason != hub.Applied {
			b.metrics.ignored.WithLabelValues(reason).Inc()
		}
	}
	return nil
}

// done is a context that has ended.
var done = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// waiting returns the next notification that has arrived already, or nil.
func waiting(conn *pgx.Conn) *pgconn.Notification {
	n, err := conn.WaitForNotification(done)
	if err != nil {
		return nil
	}
	return n
}

// parse decodes a notice about a job. Anybody may notify, so nothing in it is believed without a seal but that it is
// worth looking at the row. A probe is for us.
func (b handler) parse(n *pgconn.Notification) (job.Notice, bool) {
	notice, err := job.ParseNotice(n.Payload)
	if err != nil {
		b.metrics.ignored.WithLabelValues(malformed).Inc()
		b.garbage.Do(func() {
			b.Log.Warn("malformed notice ignored", "error", err, "payload", fmt.Sprintf("%.200q", n.Payload), "backend", n.PID)
		})
		return notice, false
	}
	b.metrics.received.WithLabelValues(string(notice.Kind)).Inc()
	switch notice.Kind {
	case job.KindProbe:
		if expected := b.expected.Load(); expected != nil && *expected == notice.Probe { // else another server's
			select {
			case b.echo <- struct{}{}:
			default:
			}
		}
		return notice, false
	case job.KindState, job.KindItem:
		if sealed(*b.sealKey.Load(), n) {
			return notice, true
		}
		b.metrics.ignored.WithLabelValues(unsealed).Inc()
		b.strange.Do(func() {
			b.Log.Warn("notice is not sealed with the key of this database, so its row is read instead", "job", notice.Job, "backend", n.PID)
			b.wakeProbe() // which reads the key: there may be a new one
		})
		return job.Notice{Kind: job.KindRow, Job: notice.Job}, true
	}
	return notice, true
}
