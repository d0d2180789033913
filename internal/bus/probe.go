package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/store"
)

// A probe is a notification that the reader's session sends and the listener must receive. That it comes back is the only
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
	underWay bool
	sent     time.Time
	next     time.Time
}

// send sends a probe, and returns how full the queue of notifications is, and how long its commit took. With write it
// costs what the commit of a writer costs; without, the commit waits for no disk and no standby.
func (p *probe) send(ctx context.Context, conn *pgx.Conn, state *listenState, write bool) (queueUsage float64, took time.Duration, err error) {
	nonce := rand.Text()
	state.expect(nonce)
	queueUsage, took, err = store.Notify(ctx, conn, Channel, probePrefix+nonce, write)
	p.next = time.Now().Add(jitter(probeInterval))
	p.underWay, p.sent = err == nil, time.Now()
	return queueUsage, took, err
}

// lost reports whether the probe under way did not come back in time.
func (p *probe) lost() bool { return p.underWay && time.Since(p.sent) > echoTimeout }

// due reports whether it is time to send one.
func (p *probe) due() bool { return !p.underWay && !time.Now().Before(p.next) }

// sendSoon has the next one sent as soon as none is under way.
func (p *probe) sendSoon() { p.next = time.Time{} }
