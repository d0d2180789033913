package trust

import (
	"context"
	"math/rand/v2"
	"time"
)

// truncateItems empties the log of items.
func truncateItems(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 2 {
		began := time.Since(w.history.start)
		err := w.execute(ctx, `truncate jobprogress.item_log`)
		w.history.set(func() { w.history.emptied = append(w.history.emptied, emptied{began, time.Since(w.history.start)}) })
		if err != nil {
			return err
		}
		hold(ctx, rng)
	}
	return nil
}

// sweepItems sweeps in the middle of everything, which servers do only each half minute.
func sweepItems(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 5 {
		if err := w.execute(ctx, `select jobprogress.sweep()`); err != nil {
			return err
		}
		hold(ctx, rng)
	}
	return nil
}

// nestTriggersSQL makes a trigger that updates the row again before ours is called: then ours is called for the second
// update first. A job that had failed before stays failed: it would go on in a run that viewers were sent has ended.
const nestTriggersSQL = `
create or replace function application() returns trigger language plpgsql as $$
begin
  update job set
    status = case when old.status <> 'failed' and status = 'failed' then 'running' else status end,
    completed_at = case when status = 'completed' or old.status = 'failed' then completed_at end,
    progress = progress || jsonb_build_object('done', (progress ->> 'done')::bigint + 1)
  where id = new.id;
  return null;
end $$;
create or replace trigger application after update on job for each row
when (pg_trigger_depth() = 0 and (new.status = 'failed' or (new.progress ->> 'succeeded')::bigint % 3 = 0))
execute function application()`

// nestTriggers has a trigger of the application change rows that were just changed.
func nestTriggers(ctx context.Context, w *world, rng *rand.Rand) error {
	if err := w.execute(ctx, nestTriggersSQL); err != nil {
		return err
	}
	hold(ctx, rng)
	hold(ctx, rng)
	w.mend(ctx, `drop trigger if exists application on job`)
	return nil
}

func disableTrigger(ctx context.Context, w *world, rng *rand.Rand) error {
	if err := w.execute(ctx, `alter table job disable trigger jobprogress`); err != nil {
		return err
	}
	hold(ctx, rng)
	w.mend(ctx, `alter table job enable trigger jobprogress`)
	return nil
}

// silence updates jobs as a bulk transaction does that wants no notifications.
func silence(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 5 {
		err := w.own(ctx, rng, func(one *writer) error {
			if _, err := one.tx.Exec(ctx, `set local jobprogress.notify = off`); err != nil {
				return err
			}
			job := w.anyJob(rng)
			if err := one.someItems(ctx, job, rng.IntN(2)); err != nil {
				return err
			}
			return one.update(ctx, job, []string{"", "", "completed"}[rng.IntN(3)])
		})
		if err != nil {
			return err
		}
	}
	return nil
}
