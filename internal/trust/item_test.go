package trust

import (
	"context"
	"errors"
	"fmt"
)

// unknownRun is that of an item of a serializable transaction.
const unknownRun = "unknown"

// anyItem is one of few, so that writers get into one another's way.
func (w *writer) anyItem() string { return fmt.Sprint("s", w.rng.IntN(5)) }

// someItems says something of n items of the job, or n times of the same.
func (w *writer) someItems(ctx context.Context, job string, n int) error {
	for range n {
		if err := w.item(ctx, job, w.anyItem(), ""); err != nil {
			return err
		}
	}
	return nil
}

// item says something of an item of the job, and notes what the log has of it: nothing, if no server serves the database.
func (w *writer) item(ctx context.Context, job, item, padding string) error {
	h := w.world.history
	one := h.begin(job, item)
	w.wrote = append(w.wrote, one)
	status := []string{"queued", "in_progress", "succeeded", "failed"}[w.rng.IntN(4)]
	_, err := w.tx.Exec(ctx, `select jobprogress.item($1, $2, 'song', $3, label => $4)`, job, item, status, fmt.Sprint("item ", one.seq, " ", padding))
	if err != nil {
		return err
	}
	var xid, label, run string
	var seq int64
	err = w.tx.QueryRow(ctx, `select pg_current_xact_id()::text, coalesce(seq, 0), coalesce(label, ''), coalesce(run, $3)
		from (values (1)) as always (one)
		left join lateral (
			select seq, label, run from jobprogress.item_log
			where job = $1 and item = $2 and xid = pg_current_xact_id() order by seq desc limit 1
		) as kept on true`, job, item, unknownRun).Scan(&xid, &seq, &label, &run)
	if err != nil {
		return err
	}
	h.set(func() {
		one.xid = xid
		if number(label) != one.seq {
			one.outcome = unkept
			w.world.report.unkept.Add(1)
			return
		}
		one.logSeq, one.started = seq, run
		w.world.report.kept.Add(1)
		for _, earlier := range w.wrote {
			if earlier != one && earlier.job == job && earlier.item == item && earlier.started == run && earlier.outcome == unknown {
				earlier.outcome = overtaken
			}
		}
	})
	return nil
}

// twoAtOnce says something of the same items in two transactions at once. That which began to has the lower seq, and
// commits last.
func (w *writer) twoAtOnce(ctx context.Context, job string) error {
	item := w.anyItem()
	if err := w.item(ctx, job, item, ""); err != nil {
		return err
	}
	other := &writer{world: w.world, rng: w.rng}
	var err error
	if other.conn, err = w.world.connect(ctx); err != nil {
		return err
	}
	defer other.conn.Close(context.Background())
	if other.tx, err = other.conn.Begin(ctx); err != nil {
		return err
	}
	err = other.item(ctx, job, item, "")
	if err == nil {
		err = other.someItems(ctx, job, w.rng.IntN(3))
	}
	if err := errors.Join(err, other.end(ctx, err != nil || w.rng.IntN(8) == 0)); err != nil {
		return err
	}
	return w.someItems(ctx, job, w.rng.IntN(2)) // and perhaps has the highest after all
}
