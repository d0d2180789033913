package sql_test

import (
	"slices"
	"testing"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
)

func TestSweepDeletesWhatNoViewerWillSee(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker := pgtest.Connect(t, url)
	running, gone, ended, unended, again := insert(t, worker), insert(t, worker), insert(t, worker), insert(t, worker), insert(t, worker)
	pgtest.Exec(t, worker, `update job set status = 'running', started_at = now()`)
	for _, id := range []job.ID{running, gone, ended, unended, again} {
		pgtest.Exec(t, worker, say, id, "s1", "queued")
		pgtest.Exec(t, worker, say, id, "s1", "succeeded")
		pgtest.Exec(t, worker, say, id, "s2", "queued")
	}
	pgtest.Exec(t, worker, `delete from job where id = $1`, gone)
	pgtest.Exec(t, worker, `update job set status = 'completed', completed_at = now() - interval '61 minutes' where id = $1`, ended)
	pgtest.Exec(t, worker, `update job set status = 'failed', completed_at = now() - interval '59 minutes' where id = $1`, unended)
	pgtest.Exec(t, worker, `update job set started_at = now() + interval '1 second' where id = $1`, again)
	if n := pgtest.Query[int](t, worker, `select deleted from jobprogress.sweep()`); n != 3+3+3+1+1 {
		t.Errorf("%d rows deleted", n)
	}
	for id, want := range map[job.ID][]string{running: {"s1 succeeded", "s2 queued"}, unended: {"s1 succeeded", "s2 queued"}, ended: nil, again: nil} {
		if got := ids(snapshot(t, url, id).Items); !slices.Equal(got, want) {
			t.Errorf("items %v, want %v", got, want)
		}
	}
	// A job that ended without saying when: an hour after the last of its items.
	pgtest.Exec(t, worker, `update job set status = 'completed', completed_at = null where id = $1`, running)
	if n := pgtest.Query[int](t, worker, `select deleted from jobprogress.sweep()`); n != 0 {
		t.Errorf("%d rows deleted of a job that ended a moment ago", n)
	}
	pgtest.Exec(t, worker, `update jobprogress.item_log set at = now() - interval '2 hours'`)
	if n := pgtest.Query[int](t, worker, `select deleted from jobprogress.sweep()`); n != 2 {
		t.Errorf("%d rows deleted of a job that ended two hours ago", n)
	}
}

// Of an item whose run is unknown, an older status that commits late must not count in the next run.
func TestSweepTakesNoItemBackInTheNextRun(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	listen(t, url)
	worker, late := pgtest.Connect(t, url), pgtest.Connect(t, url)
	id := insert(t, worker)
	pgtest.Exec(t, worker, `update job set status = 'running', started_at = now()`)
	pgtest.Exec(t, late, `begin isolation level serializable`)
	pgtest.Exec(t, late, say, id, "s1", "queued")
	pgtest.Exec(t, worker, `begin isolation level serializable`)
	pgtest.Exec(t, worker, say, id, "s1", "in_progress")
	pgtest.Exec(t, worker, `commit`)
	pgtest.Exec(t, worker, say, id, "s1", "succeeded")
	pgtest.Exec(t, worker, `select jobprogress.sweep()`)
	pgtest.Exec(t, late, `commit`)
	pgtest.Exec(t, worker, `update job set started_at = now() + interval '1 second'`)
	if got := ids(snapshot(t, url, id).Items); !slices.Equal(got, []string{"s1 in_progress"}) {
		t.Errorf("in the next run: %v", got)
	}
}
