package trust

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// fault is something that goes wrong in production.
type fault struct {
	Name string
	// Do brings it about, waits, and mends it. An error says that it could not be brought about, for another fault was
	// in the way.
	Do func(ctx context.Context, w *world, rng *rand.Rand) error
	// Slow is a fault that loses notifications without anybody knowing, so that only the backstop finds out.
	Slow bool
}

// faults are all there are.
var faults = []fault{
	{Name: "listening session terminated", Do: terminate("jobprogress listen")},
	{Name: "reading session terminated", Do: terminate("jobprogress read")},
	{Name: "pool's backends terminated", Do: terminatePool},
	{Name: "session frozen", Do: freezeSession},
	{Name: "locks held by somebody else", Do: holdLocks},
	{Name: "PostgreSQL restarted fast", Do: restart(false)},
	{Name: "PostgreSQL crashed", Do: restart(true)},
	{Name: "database link cut", Do: link(toDatabase, cut)},
	{Name: "database link delayed", Do: link(toDatabase, delay)},
	{Name: "database link in a black hole", Do: link(toDatabase, blackhole)},
	{Name: "viewers' link cut", Do: link(toViewers, cut)},
	{Name: "viewers' link delayed", Do: link(toViewers, delay)},
	{Name: "viewers' link in a black hole", Do: link(toViewers, blackhole)},
	{Name: "viewers' link slow", Do: link(toViewers, throttle)},
	{Name: "server killed", Do: killServer},
	{Name: "server terminated", Do: terminateServer},
	{Name: "server frozen", Do: freezeServer},
	{Name: "garbage notifications", Do: garbage},
	{Name: "forged notifications", Do: forge},
	{Name: "full payloads", Do: fill},
	{Name: "flood", Do: flood},
	{Name: "bursts", Do: bursts},
	{Name: "item log truncated", Do: truncateItems},
	{Name: "items swept", Do: sweepItems},
	{Name: "triggers of the application", Do: nestTriggers},
	{Name: "trigger disabled", Do: disableTrigger, Slow: true},
	{Name: "notify off", Do: silence, Slow: true},
}

// mendTimeout bounds what a fault waits for in the end; it is generous.
const mendTimeout = 90 * time.Second

// hold is how long a fault lasts.
func hold(ctx context.Context, rng *rand.Rand) {
	pause(ctx, time.Duration(100+rng.IntN(2000))*time.Millisecond)
}

// connect opens a superuser's connection of the fault's own.
func (w *world) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, w.databaseURL)
}

// execute runs statements over a connection of their own, as soon as their locks are to be had.
func (w *world) execute(ctx context.Context, statements string) error {
	const attempts = 20
	for attempt := 1; ; attempt++ {
		err := w.executeOnce(ctx, statements)
		if err == nil || attempt == attempts {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// executeOnce gives up soon: a lock request that waits makes all others wait behind it.
func (w *world) executeOnce(ctx context.Context, statements string) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.PgConn().Exec(ctx, `set lock_timeout = '500ms'; `+w.sql(statements)).ReadAll()
	return err
}

// mend executes statements until they succeed.
func (w *world) mend(ctx context.Context, statements string) {
	ctx = context.WithoutCancel(ctx)
	for end := time.Now().Add(mendTimeout); ; time.Sleep(50 * time.Millisecond) {
		err := w.executeOnce(ctx, statements)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.broken("can't execute %q: %v", statements, err)
			return
		}
	}
}
