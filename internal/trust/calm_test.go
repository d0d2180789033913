package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// calmTimeout is the deadline for pages to be right once all is well: generous, for a promise that is measured.
const calmTimeout = 30 * time.Second

// calm lets the writers pause and waits until every page shows what its row says; then it checks all that was seen.
func (w *world) calm(ctx context.Context) {
	w.t.Helper()
	defer w.mustEnd("calm")()
	start := time.Now()
	w.writing.Lock() // with the last transaction ended
	defer w.writing.Unlock()
	rows, err := w.settle(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.phases.Add(1)
	defer w.phases.Add(1)
	var wrong string
	for end := time.Now().Add(calmTimeout + w.patience()); ; time.Sleep(5 * time.Millisecond) {
		if wrong = w.wrong(rows); wrong == "" {
			break
		}
		if time.Now().After(end) {
			w.broken("not right in time: %s", wrong)
			break
		}
	}
	took := time.Since(start)
	for _, r := range w.replicas {
		if err := r.live(ctx); err != nil {
			w.broken("%v", err)
		}
	}
	w.report.mu.Lock()
	w.report.calms = append(w.report.calms, took)
	w.report.mu.Unlock()
	w.check()
}

// patience is how much longer the backstop may take.
func (w *world) patience() time.Duration {
	if w.Backstop > time.Minute {
		return 0 // it is not to be waited for
	}
	return w.Backstop
}

// settle finds out what became of the transactions whose commit was not answered, and reads the rows.
func (w *world) settle(ctx context.Context) (map[string]row, error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	for end := time.Now().Add(calmTimeout); time.Now().Before(end); {
		open := w.history.unresolved()
		for _, one := range open {
			var status *string
			err := conn.QueryRow(ctx, `select pg_xact_status($1::text::xid8)`, one.xid).Scan(&status)
			if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "22023" { // "in the future": the crash took it
				w.history.set(func() { one.outcome = aborted })
				continue
			}
			if err != nil {
				return nil, err
			}
			if status != nil && *status != "in progress" {
				w.history.set(func() { one.outcome = outcome(*status) })
			}
		}
		if len(open) == 0 {
			break
		}
		pause(ctx, 10*time.Millisecond)
	}
	rows, err := w.readRows(ctx, conn)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, job := range w.jobs { // a job that was deleted without our knowing
		if _, found := rows[job]; !found {
			for id := range rows {
				w.jobs[i] = id
			}
		}
	}
	return rows, nil
}

// readRows reads all jobs, and the items of their present runs: with those of no run, and those that were said before the
// job was started.
func (w *world) readRows(ctx context.Context, conn *pgx.Conn) (map[string]row, error) {
	all, err := conn.Query(ctx, w.sql(`select id::text, account_id::text, status::text, coalesce(error, ''), (progress ->> 'total')::bigint,
		(progress ->> 'done')::bigint, (progress ->> 'succeeded')::bigint from job`))
	if err != nil {
		return nil, err
	}
	rows := make(map[string]row)
	var id, message string
	var r row
	_, err = pgx.ForEachRow(all, []any{&id, &r.account, &r.status, &message, &r.run, &r.done, &r.seq}, func() error {
		r.err, r.items = number(message), make(map[string]int64)
		rows[id] = r
		return nil
	})
	if err != nil {
		return nil, err
	}
	// As few as there are of a job, none is forgotten for having too many.
	newest, err := conn.Query(ctx, `select distinct on (log.job, log.item) log.job, log.item, log.label
		from jobprogress.item_log as log join job on job.id::text = log.job
		where log.run is null or log.run = `+runSQL+` or log.run = '' and log.seq > coalesce((
			select max(other.seq) from jobprogress.item_log as other
			where other.job = log.job and other.run not in ('', `+runSQL+`)
		), 0)
		order by log.job, log.item, log.seq desc`)
	if err != nil {
		return nil, err
	}
	var item, label string
	_, err = pgx.ForEachRow(newest, []any{&id, &item, &label}, func() error {
		rows[id].items[item] = number(label)
		return nil
	})
	return rows, err
}

// wrong names a page that is not as its row, or "".
func (w *world) wrong(rows map[string]row) string {
	phase, _ := w.phase()
	for _, v := range w.viewers {
		v.mu.Lock()
		wrong := "it has not looked yet"
		one := v.view
		if one != nil && (one.ended == "" || one.phase == phase) {
			r, found := rows[one.job]
			wrong = one.differs(r, found)
		}
		if wrong != "" && one != nil {
			wrong += "\n" + one.print(60) + "history\n" + w.history.of(one.job, 60)
		}
		v.mu.Unlock()
		if wrong != "" {
			return wrong
		}
	}
	for _, l := range w.listers {
		if wrong := l.differs(rows); wrong != "" {
			return fmt.Sprintf("list of viewer %d of account …%s, named %v: %s", l.name, l.account[30:], l.ids, wrong)
		}
	}
	return ""
}

// check compares what every page has seen since the last time with what was written.
func (w *world) check() {
	w.mu.Lock()
	views := slices.Clone(w.views)
	w.mu.Unlock()
	for _, one := range views {
		one.viewer.mu.Lock()
		if broken := one.check(w.history); broken != "" {
			w.broken("%s\n%shistory\n%s", broken, one.print(60), w.history.of(one.job, 60))
			one.checked = len(one.seen)
		}
		one.viewer.mu.Unlock()
	}
}
