package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

// session is the one connection that listens. It also holds the locks that have what is watched notified: so with
// either, the other is lost. All of it is done by one goroutine.
type session struct {
	*Bus
	conn *pgx.Conn
	gate gate
}

// closeTimeout bounds the farewell to a session.
const closeTimeout = time.Second

// listen keeps one session listening until ctx ends.
func (b *Bus) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := b.listenOnce(ctx)
		b.mu.Lock()
		b.session, b.waiting = nil, false
		b.mu.Unlock()
		b.Hub.Disarm(every) // the locks are gone: what is watched is read on the cycle until there are new ones
		if ctx.Err() == nil {
			b.degraded(err)
		}
	}
}

// listenOnce listens over one session until that fails or ctx ends.
func (b *Bus) listenOnce(ctx context.Context) error {
	conn, err := b.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "listen "+Channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// From here on nothing is missed, and what came before is unknown.
	b.load.reset()
	b.tended.Store(new(tended))
	b.Store.Reset() // rows are to be read from the server that we listen to now
	b.Hub.Relisten()
	b.wakeProbe()
	defer context.AfterFunc(ctx, b.interrupt)()
	s := &session{Bus: b, conn: conn, gate: gate{earlier: make(map[byte]job.Visibility)}}
	for {
		if err := s.next(ctx); err != nil {
			return err
		}
	}
}

// next does what is ordered, or else waits for a notification and takes it in.
func (s *session) next(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case o := <-s.orders:
		err := o.do(s, ctx)
		o.done <- err
		return err
	default:
	}
	n, err := s.await(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("wait for notifications: %w", err)
	case n == nil:
		return nil // something is ordered, or ctx has ended
	}
	return s.hear(ctx, n)
}

// await waits for a notification, or returns nil when it is interrupted. The wait itself does without ctx, which would
// cost each notification a goroutine.
func (s *session) await(ctx context.Context) (*pgconn.Notification, error) {
	s.mu.Lock()
	s.waiting = len(s.orders) == 0 && ctx.Err() == nil // else the interrupt has been
	s.mu.Unlock()
	if !s.waiting {
		return nil, nil
	}
	n, err := s.conn.WaitForNotification(context.Background())
	s.mu.Lock()
	s.waiting = false
	s.mu.Unlock()
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return nil, s.conn.PgConn().Conn().SetReadDeadline(time.Time{})
	}
	return n, err
}

// interrupt ends the wait for a notification, if there is one.
func (b *Bus) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting {
		b.session.SetReadDeadline(time.Unix(0, 0)) // an error of it is the reader's, too
	}
}

// order is something to be done by the goroutine of the session.
type order struct {
	do   func(*session, context.Context) error // an error ends the session
	done chan error                            // with room for it

	patience time.Time // until which whoever ordered it waits
}

// orderTimeout is how long the reader waits for what it orders. Nothing that is ordered waits for a lock, so this is for a
// session that hangs: who comes then is not to wait until the probe finds that out.
const orderTimeout = time.Second

// orderTend has the session tend to its locks between two notifications, and waits for that, a moment at most. It tells
// whether it was done; if not, it is later, by this session or the next one. Only the reader calls it.
func (b *Bus) orderTend(ctx context.Context) (done bool) {
	o := order{(*session).tend, make(chan error, 1), time.Now().Add(orderTimeout)}
	select {
	case b.orders <- o:
		b.last = o
	default:
		o = b.last // which has not begun
	}
	b.interrupt()
	b.mu.Lock()
	away := b.session == nil
	b.mu.Unlock()
	if away {
		return false
	}
	timer := time.NewTimer(time.Until(o.patience))
	defer timer.Stop()
	select {
	case err := <-o.done:
		return err == nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
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

// wakeProbe has a probe sent now.
func (b *Bus) wakeProbe() {
	select {
	case b.listening <- struct{}{}:
	default:
	}
}

// ended is a context that has.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// arrived returns the next notification that has arrived already, or nil.
func arrived(conn *pgx.Conn) *pgconn.Notification {
	n, err := conn.WaitForNotification(ended)
	if err != nil {
		return nil
	}
	return n
}
