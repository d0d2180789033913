package trust

import (
	"context"
	"fmt"
)

// exec changes one row as text says, and notes what came of it. $1 is the job, $2 the write.
func (w *writer) exec(ctx context.Context, job, text string, more ...any) error {
	one := w.world.history.begin(job, "")
	w.wrote = append(w.wrote, one)
	tag, err := w.tx.Exec(ctx, w.world.sql(text), append([]any{job, one.seq}, more...)...)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		w.world.history.set(func() { one.outcome = overtaken }) // it never was
		return nil
	}
	return w.readBack(ctx, one)
}

// readBack notes what the transaction has made of the row. RETURNING would not do: it returns the row as it was before
// triggers of the application updated it again.
func (w *writer) readBack(ctx context.Context, one *write) error {
	var xid, account, status, message, started string
	var run, done int64
	err := w.tx.QueryRow(ctx, w.world.sql(`select pg_current_xact_id()::text, account_id::text, status::text, coalesce(error, ''),
		`+runSQL+`, (progress ->> 'total')::bigint, (progress ->> 'done')::bigint from job where id = $1`), one.job).
		Scan(&xid, &account, &status, &message, &started, &run, &done)
	if err != nil {
		return err
	}
	h := w.world.history
	h.set(func() {
		one.xid, one.account, one.status, one.run, one.done, one.err, one.started = xid, account, status, run, done, number(message), started
		h.startedAs(one.job, started, run)
		for _, earlier := range w.wrote {
			if earlier != one && earlier.job == one.job && earlier.item == "" && earlier.outcome == unknown {
				earlier.outcome = overtaken
			}
		}
	}, one.job, account)
	return nil
}

// runSQL is how jobprogress distinguishes the runs of a job.
const runSQL = `coalesce(extract(epoch from job.started_at)::text, '')`

// next is the progress of the next update: total counts the runs, done the updates of the run.
const next = `jsonb_build_object('total', progress -> 'total', 'done', (progress ->> 'done')::bigint + 1, 'succeeded', $2::bigint)`

// update counts one on, and ends the job if status is not empty.
func (w *writer) update(ctx context.Context, job, status string) error {
	if status != "" {
		return w.exec(ctx, job, `update job set progress = `+next+`, status = $3::job_status, completed_at = clock_timestamp(),
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
	return w.exec(ctx, job, `update job set status = 'running', error = null, started_at = clock_timestamp(), completed_at = null,
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
	if err := w.item(ctx, job, w.anyItem(), ""); err != nil {
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
	id, owner := w.world.newID(), []string{ada, ben}[w.rng.IntN(2)]
	w.world.history.set(func() { w.world.history.deleted[id] = true }, id, owner) // not there yet, perhaps never
	started := w.rng.IntN(4) > 0                                                  // else the first run has no name
	err := w.exec(ctx, id, `insert into job (id, account_id, type, status, started_at, progress)
		values ($1, $3, 'matching', 'running', case when $4 then clock_timestamp() end,
		jsonb_build_object('total', 1, 'done', 0, 'succeeded', $2::bigint))`, owner, started)
	if err == nil {
		w.moved = append(w.moved, [2]string{instead, id})
	}
	return err
}
