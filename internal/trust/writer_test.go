package trust

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
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
	if w.tx, err = w.conn.Begin(ctx); err != nil {
		return err
	}
	err = w.shape(ctx)
	abort := err != nil || w.rng.IntN(10) == 0
	if abort {
		w.tx.Rollback(context.Background())
		w.settle(aborted)
		return err
	}
	err = w.tx.Commit(ctx)
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
	switch w.rng.IntN(16) {
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
	case 7, 8: // the end
		return w.update(ctx, job, []string{"completed", "failed"}[w.rng.IntN(2)])
	case 9, 10:
		return w.startAgain(ctx, job)
	case 11:
		if w.rng.IntN(3) == 0 {
			return w.delete(ctx, job)
		}
		return w.giveAway(ctx, job)
	case 12, 13:
		for range 1 + w.rng.IntN(3) {
			if err := w.item(ctx, job, ""); err != nil {
				return err
			}
		}
		return w.update(ctx, job, "")
	}
	return nil
}

// exec updates one row as text says, and notes what came of it. $1 is the job, $2 the write.
func (w *writer) exec(ctx context.Context, job, text string, more ...any) error {
	one := w.world.history.begin(job, "")
	w.wrote = append(w.wrote, one)
	var xid, account, status, message string
	var run, done int64
	text += ` returning pg_current_xact_id()::text, account_id::text, status::text, coalesce(error, ''),
		(progress ->> 'total')::bigint, (progress ->> 'done')::bigint`
	err := w.tx.QueryRow(ctx, text, append([]any{job, one.seq}, more...)...).Scan(&xid, &account, &status, &message, &run, &done)
	w.world.history.set(func() {
		if errors.Is(err, pgx.ErrNoRows) {
			one.outcome = overtaken // it never was
			return
		}
		if err != nil {
			return
		}
		one.xid, one.account, one.status, one.run, one.done, one.err = xid, account, status, run, done, number(message)
		for _, earlier := range w.wrote {
			if earlier != one && earlier.job == job && earlier.item == "" && earlier.outcome == unknown {
				earlier.outcome = overtaken
			}
		}
	}, job, account)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// next is the progress of the next update: total counts the runs, done the updates of the run.
const next = `jsonb_build_object('total', progress -> 'total', 'done', (progress ->> 'done')::bigint + 1, 'succeeded', $2::bigint)`

// update counts one on, and ends the job if status is not empty.
func (w *writer) update(ctx context.Context, job, status string) error {
	if status != "" {
		return w.exec(ctx, job, `update job set progress = `+next+`, status = $3::job_status,
			error = case when $3 = 'failed' then 'error ' || $2 end where id = $1 and status = 'running'`, status)
	}
	message := `error`
	switch w.rng.IntN(8) {
	case 0:
		message = `'error ' || $2 || repeat('é', ` + fmt.Sprint(w.rng.IntN(3000)) + `)`
	case 1:
		message = `null`
	}
	return w.exec(ctx, job, `update job set progress = `+next+`, error = `+message+` where id = $1 and status = 'running'`)
}

func (w *writer) startAgain(ctx context.Context, job string) error {
	return w.exec(ctx, job, `update job set status = 'running', error = null,
		progress = jsonb_build_object('total', (progress ->> 'total')::bigint + 1, 'done', 0, 'succeeded', $2::bigint)
		where id = $1 and status <> 'running'`)
}

// giveAway makes the job another account's.
func (w *writer) giveAway(ctx context.Context, job string) error {
	return w.exec(ctx, job, `update job set progress = `+next+`, account_id = case account_id when $3 then $4::uuid else $3 end where id = $1`, ada, ben)
}

// savepoint updates a job and takes that back.
func (w *writer) savepoint(ctx context.Context, job string) error {
	outer := w.tx
	defer func() { w.tx = outer }()
	before := len(w.wrote)
	states := make([]outcome, before)
	for i, one := range w.wrote {
		states[i] = one.outcome
	}
	var err error
	if w.tx, err = outer.Begin(ctx); err != nil {
		return err
	}
	if err := w.update(ctx, job, ""); err != nil {
		return err
	}
	if err := w.item(ctx, job, ""); err != nil {
		return err
	}
	if err := w.tx.Rollback(ctx); err != nil {
		return err
	}
	w.world.history.set(func() {
		for _, one := range w.wrote[before:] {
			one.outcome = overtaken
		}
		for i, o := range states { // what it had overtaken counts again
			w.wrote[i].outcome = o
		}
	})
	w.tx = outer
	if w.rng.IntN(2) == 0 {
		return w.update(ctx, job, "")
	}
	return nil
}

// delete deletes the job, and puts a new one in its place.
func (w *writer) delete(ctx context.Context, job string) error {
	w.world.history.set(func() { w.world.history.deleted[job] = true })
	if _, err := w.tx.Exec(ctx, `delete from job where id = $1`, job); err != nil {
		return err
	}
	return w.insert(ctx, job)
}

// insert makes a job instead of another.
func (w *writer) insert(ctx context.Context, instead string) error {
	random := uuid.New()
	if n := w.world.Buckets; n > 0 {
		random[15] %= byte(n)
	}
	id, owner := random.String(), []string{ada, ben}[w.rng.IntN(2)]
	w.world.history.set(func() { w.world.history.deleted[id] = true }, id, owner) // not there yet, perhaps never
	err := w.exec(ctx, id, `insert into job (id, account_id, type, status, progress)
		values ($1, $3, 'matching', 'running', jsonb_build_object('total', 1, 'done', 0, 'succeeded', $2::bigint))`, owner)
	if err == nil {
		w.moved = append(w.moved, [2]string{instead, id})
	}
	return err
}

// item tells of an item of the job.
func (w *writer) item(ctx context.Context, job, padding string) error {
	// Who writes of a job waits for those who did before, so what is written later commits later.
	if _, err := w.tx.Exec(ctx, `select from job where id = $1 for no key update`, job); err != nil {
		return err
	}
	id := fmt.Sprint("s", w.rng.IntN(5))
	one := w.world.history.begin(job, id)
	w.wrote = append(w.wrote, one)
	status := []string{"queued", "in_progress", "succeeded", "failed"}[w.rng.IntN(4)]
	_, err := w.tx.Exec(ctx, `select jobprogress.item($1, $2, 'song', $3, label => $4)`, job, id, status, fmt.Sprint("item ", one.seq, " ", padding))
	return err
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
