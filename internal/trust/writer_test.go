package trust

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// writer updates jobs in transactions of all shapes, over a connection of its own.
type writer struct {
	world *world
	rng   *rand.Rand
	conn  *pgx.Conn

	// Of the transaction under way.
	tx    pgx.Tx
	wrote []*write
	moved [][2]string // jobs deleted, and those that come in their place
}

const (
	ada = "00000000-0000-4000-8000-00000000000a"
	ben = "00000000-0000-4000-8000-00000000000b"
)

// run writes until ctx ends. It waits while the world is calm.
func (w *writer) run(ctx context.Context) {
	defer func() {
		if w.conn != nil {
			w.conn.Close(context.Background())
		}
	}()
	for ctx.Err() == nil {
		w.world.writing.RLock()
		err := w.transaction(ctx)
		w.world.writing.RUnlock()
		if err != nil && w.conn != nil && w.conn.IsClosed() {
			w.conn = nil
		}
		pause(ctx, time.Duration(5+w.rng.IntN(30))*time.Millisecond)
	}
}

// transaction does one, of a random shape.
func (w *writer) transaction(ctx context.Context) (err error) {
	if w.conn == nil {
		if w.conn, err = pgx.Connect(ctx, w.world.databaseURL); err != nil {
			pause(ctx, 100*time.Millisecond)
			return err
		}
	}
	w.wrote, w.moved = nil, nil
	var options pgx.TxOptions
	if w.rng.IntN(10) == 0 {
		options.IsoLevel = pgx.Serializable // in which the run of an item is unknown
	}
	if w.tx, err = w.conn.BeginTx(ctx, options); err != nil {
		return err
	}
	err = w.shape(ctx)
	return errors.Join(err, w.end(ctx, err != nil || w.rng.IntN(10) == 0))
}

// end ends the transaction, and notes what became of it as far as that is known.
func (w *writer) end(ctx context.Context, abort bool) error {
	if abort {
		w.tx.Rollback(context.Background())
		w.settle(aborted)
		return nil
	}
	err := w.tx.Commit(ctx)
	if err == nil {
		w.settle(committed)
		w.world.report.transactions.Add(1)
		for _, m := range w.moved {
			w.world.replace(m[0], m[1])
		}
	} else if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code[:2] != "57" { // refused, not cut off
		w.settle(aborted)
	}
	return err
}

// settle notes what became of the writes of the transaction that were not overtaken.
func (w *writer) settle(o outcome) {
	w.world.history.set(func() {
		for _, one := range w.wrote {
			if one.outcome == unknown {
				one.outcome = o
			}
		}
	})
}

func (w *writer) shape(ctx context.Context) error {
	job := w.world.anyJob(w.rng)
	switch w.rng.IntN(20) {
	default:
		return w.update(ctx, job, "")
	case 0, 1: // several updates of one job
		for range 2 + w.rng.IntN(4) {
			if err := w.update(ctx, job, ""); err != nil {
				return err
			}
		}
	case 2, 3: // several jobs, slowly: its xid is older than those of others that commit meanwhile
		for range 2 + w.rng.IntN(3) {
			if err := w.update(ctx, w.world.anyJob(w.rng), ""); err != nil {
				return err
			}
			pause(ctx, time.Duration(w.rng.IntN(200))*time.Millisecond)
		}
	case 4: // a long one that has an xid before it touches the job
		if _, err := w.tx.Exec(ctx, `select pg_current_xact_id()`); err != nil {
			return err
		}
		pause(ctx, time.Duration(w.rng.IntN(800))*time.Millisecond)
		return w.update(ctx, job, "")
	case 5, 6: // rolled back to a savepoint, and perhaps changed again
		if w.rng.IntN(2) == 0 {
			if err := w.update(ctx, job, ""); err != nil {
				return err
			}
		}
		return w.savepoint(ctx, job)
	case 7, 8: // the end, perhaps with the last items
		if err := w.someItems(ctx, job, w.rng.IntN(3)); err != nil {
			return err
		}
		return w.update(ctx, job, []string{"completed", "failed"}[w.rng.IntN(2)])
	case 9, 10: // a new run, perhaps with items said of the run before and of the new one
		if err := w.someItems(ctx, job, w.rng.IntN(2)); err != nil {
			return err
		}
		if err := w.startAgain(ctx, job); err != nil {
			return err
		}
		return w.someItems(ctx, job, w.rng.IntN(3))
	case 11:
		if w.rng.IntN(3) == 0 {
			return w.delete(ctx, job)
		}
		return w.giveAway(ctx, job)
	case 12, 13:
		if err := w.someItems(ctx, job, 1+w.rng.IntN(3)); err != nil {
			return err
		}
		return w.update(ctx, job, "")
	case 14, 15: // only items, slowly: others say something else of them meanwhile
		for range 1 + w.rng.IntN(3) {
			if err := w.item(ctx, job, w.anyItem(), ""); err != nil {
				return err
			}
			pause(ctx, time.Duration(w.rng.IntN(100))*time.Millisecond)
		}
	case 16:
		return w.twoAtOnce(ctx, job)
	}
	return nil
}

// number is the seq in an error text or a label, or 0.
func number(text string) (n int64) {
	_, rest, _ := strings.Cut(text, " ")
	fmt.Sscan(rest, &n)
	return n
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
