package trust

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// own runs a writer's transaction of the fault's own until it has committed.
func (w *world) own(ctx context.Context, rng *rand.Rand, do func(*writer) error) error {
	one := &writer{world: w, rng: rng}
	var err error
	if one.conn, err = w.connect(ctx); err != nil {
		return err
	}
	defer one.conn.Close(context.Background())
	w.writing.RLock()
	defer w.writing.RUnlock()
	if one.tx, err = one.conn.Begin(ctx); err != nil {
		return err
	}
	err = do(one)
	return errors.Join(err, one.end(ctx, err != nil))
}

// fill makes errors and labels longer than viewers are sent, and counts that are none.
func fill(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 20 {
		err := w.own(ctx, rng, func(one *writer) error {
			job := w.anyJob(rng)
			message := `'error ' || $2 || repeat('` + []string{"x", "é", "\U0001F600", `\`, `"`, "\x01"}[rng.IntN(6)] + `', ` + fmt.Sprint(rng.IntN(10_000)) + `)`
			if err := one.exec(ctx, job, `update job set progress = `+next+`, error = `+message+` where id = $1 and status = 'running'`); err != nil {
				return err
			}
			if rng.IntN(3) == 0 {
				if err := one.exec(ctx, job, `update job set progress = `+next+` || jsonb_build_object('failed', repeat('x', 9000)) where id = $1 and status = 'running'`); err != nil {
					return err
				}
			}
			return one.item(ctx, job, one.anyItem(), strings.Repeat("é", rng.IntN(10_000)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// floodRate is how often a second the flood updates its job, and floodTime how long.
const (
	floodRate = 5000
	floodTime = 1
)

// flood updates one job as fast as can be, each time in a transaction of its own.
func flood(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	return w.burst(ctx, conn, w.anyJob(rng), floodRate*floodTime)
}

// burst updates a job n times as fast as can be.
func (w *world) burst(ctx context.Context, conn *pgx.Conn, job string, n int64) error {
	w.writing.RLock()
	defer w.writing.RUnlock()
	first := w.history.reserve(job, n)
	_, err := conn.Exec(ctx, w.sql(fmt.Sprintf(`do $$ begin
		for i in 0..%d loop
			update job set progress = jsonb_build_object('total', progress -> 'total', 'done', (progress ->> 'done')::bigint + 1, 'succeeded', %d + i)
			where id = '%s' and status = 'running';
			commit;
		end loop;
	end $$`, n-1, first, job)))
	return err
}

// bursts make jobs too fast to be notified, and slow again, in turns.
func bursts(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 3 {
		if err := burstOnce(ctx, w, rng); err != nil {
			return err
		}
	}
	return nil
}

// burstOnce brings one bucket over budget.
func burstOnce(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	defer pause(ctx, time.Duration(rng.IntN(1300))*time.Millisecond) // it may be notified again after a second
	return w.burst(ctx, conn, w.anyJob(rng), 700)
}
