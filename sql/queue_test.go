package sql_test

import (
	"testing"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// Since PostgreSQL 17 the queue can be made small enough to fill.
func TestCheckNamesAFullNotificationQueue(t *testing.T) {
	t.Parallel()
	if pgtest.Query[int](t, pgtest.Connect(t, pgtest.New(t)), `select current_setting('server_version_num')::int`) < 170000 {
		return
	}
	_, url := pgtest.Own(t, "max_notify_queue_pages=64")
	hanging, admin := pgtest.Connect(t, url), pgtest.Connect(t, url)
	pgtest.Exec(t, hanging, `listen jobprogress`)
	pgtest.Exec(t, hanging, `begin`) // and reads nothing
	pgtest.Exec(t, hanging, `select 1`)
	for pgtest.Query[float64](t, admin, `select pg_notification_queue_usage()`) < 0.6 {
		pgtest.Exec(t, admin, `select pg_notify('jobprogress', repeat('x', 7000) || i) from generate_series(1, 5) as i`)
	}
	_, findings, err := store.Check(t.Context(), admin, store.Roles{})
	if err != nil || len(findings) != 1 || findings[0].Code != "queue_usage" || !findings[0].Fault {
		t.Errorf("found %+v, %v", findings, err)
	}
}
