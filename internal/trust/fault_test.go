package trust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/pgtest"
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
	{Name: "backend that listens and locks terminated", Do: terminate(`application_name = 'jobprogress listen'`)},
	{Name: "pool's backends terminated", Do: terminate(`application_name = 'jobprogress'`)},
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
	{Name: "garbage notices", Do: garbage},
	{Name: "forged notices", Do: forge},
	{Name: "full payloads", Do: fill},
	{Name: "flood", Do: flood},
	{Name: "bursts", Do: bursts},
	{Name: "locks held by somebody else", Do: holdLocks},
	{Name: "trigger disabled", Do: disableTrigger, Slow: true},
	{Name: "notify off", Do: silence, Slow: true},
}

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

func terminate(which string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		conn, err := w.connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		for i := range 1 + rng.IntN(3) {
			tag, err := conn.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and `+which)
			if err != nil {
				return err
			}
			if i == 0 && tag.RowsAffected() == 0 {
				return fmt.Errorf("no backend to terminate")
			}
			pause(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
		}
		return nil
	}
}

func restart(immediate bool) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		w.restarting.Lock()
		defer w.restarting.Unlock()
		if err := w.server.Halt(ctx, immediate); err != nil {
			return err
		}
		hold(ctx, rng)
		return w.server.Resume(context.WithoutCancel(ctx))
	}
}

// A link is to the database or to the viewers; a way is how it fails.
func toDatabase(r *replica) *pgtest.Link { return r.toDatabase }
func toViewers(r *replica) *pgtest.Link  { return r.toViewers }

func cut(l *pgtest.Link, _ *rand.Rand) (mend func(), err error) {
	l.Cut()
	return func() {
		if err := l.Mend(); err != nil {
			panic(err) // the port was ours a moment ago
		}
	}, nil
}

func delay(l *pgtest.Link, rng *rand.Rand) (mend func(), err error) {
	return l.Heal, l.Delay(50+rng.IntN(400), rng.IntN(200))
}

func blackhole(l *pgtest.Link, _ *rand.Rand) (mend func(), err error) { return l.Heal, l.Blackhole() }

func throttle(l *pgtest.Link, _ *rand.Rand) (mend func(), err error) { return l.Heal, l.Throttle(1) }

func link(which func(*replica) *pgtest.Link, way func(*pgtest.Link, *rand.Rand) (func(), error)) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		r := w.anyReplica(rng)
		defer r.fault.Unlock()
		mend, err := way(which(r), rng)
		if err != nil {
			return err
		}
		defer mend()
		hold(ctx, rng)
		if rng.IntN(4) == 0 {
			pause(ctx, 8*time.Second) // longer than a probe takes
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

// notify sends each payload as anybody who may connect can.
func (w *world) notify(ctx context.Context, payloads ...string) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for _, p := range payloads {
		if _, err := conn.Exec(ctx, `select pg_notify('jobprogress', $1)`, p); err != nil {
			return err
		}
	}
	return nil
}

func garbage(ctx context.Context, w *world, rng *rand.Rand) error {
	id := w.anyJob(rng)
	return w.notify(ctx,
		"", "garbage", "null", "[]", `{"kind":7}`, `{"kind":"row"}`, `{"kind":"state","job":"`+id+`"}`, `{"kind":"state","job":"`+id+`","xid":"-1"}`,
		`{"seal":"`+strings.Repeat("0", 32)+`","kind":"state","job":"`+id+`","xid":"1","progress":"x"}`, `{"kind":"probe","probe":7}`,
		strings.Repeat("[", 7000), strings.Repeat("é", 3900), `{"kind":"item","job":"`+id+`","item":{"itemId":null}}`)
}

// forge notifies states and items that never were, and what it has heard itself, a second time.
func forge(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, `listen jobprogress`); err != nil {
		return err
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		listening, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		heard, err := conn.WaitForNotification(listening)
		cancel()
		if conn.IsClosed() {
			return err
		}
		id, account := w.anyJob(rng), []string{ada, ben}[rng.IntN(2)]
		payloads := []string{
			`{"kind":"state","job":"` + id + `","xid":"18446744073709551614","account":"` + account + `","status":"running","progress":{"total":1,"done":0,"succeeded":0}}`,
			`{"kind":"state","job":"` + id + `","xid":"9000000000","account":"` + account + `","status":"completed","error":"forged"}`,
			`{"kind":"item","job":"` + id + `","item":{"itemId":"s1","itemKind":"song","status":"failed","label":"item 0"}}`,
			`{"kind":"row","job":"` + id + `"}`,
		}
		if heard != nil {
			payloads = append(payloads, heard.Payload, strings.Replace(heard.Payload, `"done":`, `"done":1`, 1))
		}
		for _, p := range payloads {
			if _, err := conn.Exec(ctx, `select pg_notify('jobprogress', $1)`, p); err != nil {
				return err
			}
		}
	}
	return nil
}

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
	if err := do(one); err != nil {
		one.tx.Rollback(context.Background())
		one.settle(aborted)
		return err
	}
	if err := one.tx.Commit(ctx); err != nil {
		return err
	}
	one.settle(committed)
	return nil
}

// fill makes notices as large as they get, and rows that fit into none.
func fill(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 20 {
		err := w.own(ctx, rng, func(one *writer) error {
			job := w.anyJob(rng)
			message := `'error ' || $2 || repeat('` + []string{"x", "é", "\U0001F600", `\`, `"`, "\x01"}[rng.IntN(6)] + `', ` + fmt.Sprint(rng.IntN(10_000)) + `)`
			if err := one.exec(ctx, job, `update job set progress = `+next+`, error = `+message+` where id = $1 and status = 'running'`); err != nil {
				return err
			}
			if rng.IntN(3) == 0 { // a count that fits into no notice
				if err := one.exec(ctx, job, `update job set progress = `+next+` || jsonb_build_object('failed', repeat('x', 9000)) where id = $1 and status = 'running'`); err != nil {
					return err
				}
			}
			return one.item(ctx, job, strings.Repeat("é", rng.IntN(10_000)))
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
	_, err := conn.Exec(ctx, fmt.Sprintf(`do $$ begin
		for i in 0..%d loop
			update job set progress = jsonb_build_object('total', progress -> 'total', 'done', (progress ->> 'done')::bigint + 1, 'succeeded', %d + i)
			where id = '%s' and status = 'running';
			commit;
		end loop;
	end $$`, n-1, first, job))
	return err
}

// bursts make jobs too loud and slow again in turns.
func bursts(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 3 {
		if err := burstOnce(ctx, w, rng); err != nil {
			return err
		}
	}
	return nil
}

// burstOnce makes one job too loud.
func burstOnce(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	defer pause(ctx, time.Duration(rng.IntN(1300))*time.Millisecond) // it is told again after a second
	return w.burst(ctx, conn, w.anyJob(rng), 700)
}

// holdLocks keeps the servers from the locks that they ask for meanwhile.
func holdLocks(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for range 3 {
		_, err := conn.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'jobprogress listen'`)
		if err == nil {
			_, err = conn.Exec(ctx, `select pg_try_advisory_lock(class, bucket) from unnest(array[1785684592, 1785684593]) as class, generate_series($1::int, 255, 2) as bucket`, rng.IntN(2))
		}
		if err != nil {
			return err
		}
		hold(ctx, rng)
		if _, err := conn.Exec(ctx, `select pg_advisory_unlock_all()`); err != nil {
			return err
		}
	}
	return nil
}

func disableTrigger(ctx context.Context, w *world, rng *rand.Rand) error {
	alter := func(ctx context.Context, what string) error {
		conn, err := w.connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(ctx, `set lock_timeout = '2s'; alter table job `+what+` trigger jobprogress`)
		return err
	}
	if err := alter(ctx, "disable"); err != nil {
		return err
	}
	hold(ctx, rng)
	for ctx := context.WithoutCancel(ctx); ; {
		if err := alter(ctx, "enable"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// silence updates jobs as a bulk transaction does that wants no notices.
func silence(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 5 {
		err := w.own(ctx, rng, func(one *writer) error {
			if _, err := one.tx.Exec(ctx, `set local jobprogress.notify = off`); err != nil {
				return err
			}
			return one.update(ctx, w.anyJob(rng), []string{"", "", "completed"}[rng.IntN(3)])
		})
		if err != nil {
			return err
		}
	}
	return nil
}
