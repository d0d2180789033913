package trust

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"jobprogress/internal/pgtest/network"
)

// restart stops PostgreSQL, as for maintenance or by a crash, and starts it again.
func restart(immediate bool) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		w.restarting.Lock()
		defer w.restarting.Unlock()
		halting, cancel := context.WithTimeout(ctx, mendTimeout)
		defer cancel()
		if err := w.server.Halt(halting, immediate); err != nil {
			return err
		}
		if immediate {
			w.history.set(func() { w.history.crashes++ })
		}
		hold(ctx, rng)
		return w.server.Resume(context.WithoutCancel(ctx))
	}
}

// A link is to the database or to the viewers; a way is how it fails.
func toDatabase(r *replica) *network.Link { return r.toDatabase }
func toViewers(r *replica) *network.Link  { return r.toViewers }

func cut(l *network.Link, _ *rand.Rand) (mend func(), err error) {
	l.Cut()
	return func() {
		if err := l.Mend(); err != nil {
			panic(err) // the port was ours a moment ago
		}
	}, nil
}

func delay(l *network.Link, rng *rand.Rand) (mend func(), err error) {
	return l.Heal, l.Delay(50+rng.IntN(400), rng.IntN(200))
}

func blackhole(l *network.Link, _ *rand.Rand) (mend func(), err error) { return l.Heal, l.Blackhole() }

func throttle(l *network.Link, _ *rand.Rand) (mend func(), err error) { return l.Heal, l.Throttle(1) }

func link(which func(*replica) *network.Link, way func(*network.Link, *rand.Rand) (func(), error)) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		r := w.anyReplica(rng)
		defer r.fault.Unlock()
		mend, err := way(which(r), rng)
		if err != nil {
			return err
		}
		defer mend()
		wasReady := r.isReady(ctx)
		hold(ctx, rng)
		if rng.IntN(4) == 0 {
			pause(ctx, 8*time.Second) // longer than a probe takes
		}
		if wasReady && !r.isReady(ctx) {
			w.broken("replica %d was ready, and is not while a link fails:\n%s", r.name, r.log.String())
		}
		return nil
	}
}

func killServer(ctx context.Context, w *world, rng *rand.Rand) error {
	r := w.anyReplica(rng)
	defer r.fault.Unlock()
	r.kill()
	hold(ctx, rng)
	return r.start()
}

func terminateServer(ctx context.Context, w *world, rng *rand.Rand) error {
	r := w.anyReplica(rng)
	defer r.fault.Unlock()
	if err := r.stop(); err != nil {
		w.broken("%v", err)
	}
	hold(ctx, rng)
	return r.start()
}

func freezeServer(ctx context.Context, w *world, rng *rand.Rand) error {
	r := w.anyReplica(rng)
	defer r.fault.Unlock()
	r.signal(syscall.SIGSTOP)
	defer r.signal(syscall.SIGCONT)
	hold(ctx, rng)
	if rng.IntN(4) == 0 {
		pause(ctx, 8*time.Second)
	}
	return nil
}
