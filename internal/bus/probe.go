package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/store"
)

// A probe is a notification that the reader's session sends and the listener must hear. That it comes back is the only
// proof that notifications arrive: not with a transaction pooler in between, a connection that is dead without having
// been closed, a primary that no longer is one, two servers behind one name, or a handler that hangs.
const (
	probePrefix   = "probe "
	probeInterval = 5 * time.Second
	// echoTimeout is how long a probe may take to come back, from when the database has taken it.
	echoTimeout = 3 * time.Second
)

var errNoEcho = errors.New("probe did not come back: the connection is dead, or LISTEN_DATABASE_URL is no direct session to the primary but goes through a transaction pooler; name the primary itself there, or a pooler in session mode")

// probe is the one under way, if any, and when the next is sent. It belongs to the reader.
type probe struct {
	nonce string // of the one under way; "" is none
	sent  time.Time
	next  time.Time
}

// send sends a probe, and returns how full the queue of notifications is, and how long the commit took.
func (p *probe) send(ctx context.Context, conn *pgx.Conn) (queueUsage float64, took time.Duration, err error) {
	nonce := rand.Text()
	queueUsage, took, err = store.Notify(ctx, conn, Channel, probePrefix+nonce)
	p.next = time.Now().Add(jitter(probeInterval))
	if err != nil {
		return 0, 0, err
	}
	p.nonce, p.sent = nonce, time.Now()
	return queueUsage, took, nil
}

// answered reports whether an echo is that of the probe under way. Those of other servers arrive, too.
func (p *probe) answered(echo string) bool {
	if p.nonce == "" || echo != p.nonce {
		return false
	}
	p.nonce = ""
	return true
}

// lost reports whether the probe under way did not come back in time.
func (p *probe) lost() bool { return p.nonce != "" && time.Since(p.sent) > echoTimeout }

// due reports whether it is time to send one.
func (p *probe) due() bool { return p.nonce == "" && !time.Now().Before(p.next) }

// sendSoon has the next one sent as soon as none is under way.
func (p *probe) sendSoon() { p.next = time.Time{} }
