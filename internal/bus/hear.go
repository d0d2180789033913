package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// Why a notice is not believed.
const (
	malformed = "malformed" // it says nothing sensible
	unsealed  = "unsealed"  // it does not come from our functions: forged, or they have another key by now
	partial   = "partial"   // its transaction is older than the bucket's lock, and may not tell all that it did
)

// hear takes what was notified to the topics: this notice and all that came with it.
//
// A transaction that updates a job more than once notifies every state, and only the last is ever committed. They are
// sent together, but may arrive in pieces. So the server is asked for an answer first: it comes after all that was
// being sent.
func (s *session) hear(ctx context.Context, n *pgconn.Notification) error {
	if err := s.ask(); err != nil {
		return fmt.Errorf("ask for the rest: %w", err)
	}
	notices := make([]job.Notice, 0, 16)
	take := func(n *pgconn.Notification) {
		if notice, ok := s.parse(n); ok {
			notices = append(notices, notice)
		}
	}
	take(n) // meanwhile
	if err := s.answered(); err != nil {
		return fmt.Errorf("wait for the rest: %w", err)
	}
	for n := arrived(s.conn); n != nil; n = arrived(s.conn) {
		take(n)
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
		if reason := s.Hub.Apply(notice); reason != hub.Applied {
			s.metrics.ignored.WithLabelValues(reason).Inc()
		}
	}
	if loud := s.load.hear(time.Now(), notices, s.gate.held.Rows); loud != none {
		return s.letGo(ctx, loud)
	}
	return nil
}

// answerTimeout bounds the wait for an answer that costs the server nothing.
const answerTimeout = 3 * time.Second

// ask asks the server for an answer.
func (s *session) ask() error {
	s.conn.PgConn().Frontend().Send(&pgproto3.Sync{})
	return s.conn.PgConn().Frontend().Flush()
}

// answered waits for that answer. What the server had begun to send before has then arrived.
func (s *session) answered() error {
	conn := s.conn.PgConn()
	if err := conn.Conn().SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	for {
		message, err := conn.ReceiveMessage(context.Background())
		if err != nil {
			return err
		}
		if _, ready := message.(*pgproto3.ReadyForQuery); ready {
			return conn.Conn().SetReadDeadline(time.Time{})
		}
	}
}

// parse decodes a notice about a job. Anybody may notify, so nothing in it is believed without a seal but that it is
// worth looking at the row. A probe is for us.
func (s *session) parse(n *pgconn.Notification) (job.Notice, bool) {
	notice, err := job.ParseNotice(n.Payload)
	if err != nil {
		s.metrics.ignored.WithLabelValues(malformed).Inc()
		s.garbage.Do(func() {
			s.Log.Warn("malformed notice ignored", "error", err, "payload", fmt.Sprintf("%.200q", n.Payload), "backend", n.PID)
		})
		return notice, false
	}
	s.metrics.received.WithLabelValues(string(notice.Kind)).Inc()
	look := job.Notice{Kind: job.KindRow, Job: notice.Job}
	switch notice.Kind {
	case job.KindProbe:
		if expected := s.expected.Load(); expected != nil && *expected == notice.Probe { // else another server's
			select {
			case s.echo <- struct{}{}:
			default:
			}
		}
		return notice, false
	case job.KindState, job.KindItem:
		if !sealed(*s.sealKey.Load(), n) {
			s.metrics.ignored.WithLabelValues(unsealed).Inc()
			s.strange.Do(func() {
				s.Log.Warn("notice is not sealed with the key of this database, so its row is read instead", "job", notice.Job, "backend", n.PID)
				s.wakeProbe() // which reads the key: there may be a new one
			})
			return look, true
		}
		if notice.Kind == job.KindState && s.gate.half(notice) {
			s.metrics.ignored.WithLabelValues(partial).Inc()
			return look, true
		}
	}
	return notice, true
}
