package sql_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

const ada = "00000000-0000-4000-8000-00000000000a"

// deadline is for what should take milliseconds.
const deadline = 20 * time.Second

// listen listens, and has everything notified and all items kept, as a server does whose viewers watch all jobs.
func listen(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `listen jobprogress`)
	pgtest.Exec(t, conn, `select pg_advisory_lock_shared($1, key) from generate_series(0, 256) as key`, store.LockClass)
	return conn
}

// receives checks that the next notifications name these jobs.
func receives(t *testing.T, listener *pgx.Conn, ids ...job.ID) {
	t.Helper()
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		n, err := listener.WaitForNotification(ctx)
		cancel()
		if err != nil {
			t.Fatalf("wait for a notification of %s: %v", id, err)
		}
		if n.Payload != string(id) {
			t.Errorf("notified %q, want %q", n.Payload, id)
		}
	}
}

// silent checks that nothing was notified so far: what is notified now comes next.
func silent(t *testing.T, listener, other *pgx.Conn) {
	t.Helper()
	pgtest.Exec(t, other, `notify jobprogress, 'marker'`)
	receives(t, listener, "marker")
}

func insert(t *testing.T, conn *pgx.Conn) job.ID {
	t.Helper()
	id := uuid.NewString()
	pgtest.Exec(t, conn, `insert into job (id, account_id, type) values ($1, $2, 'matching')`, id, ada)
	return job.ID(id)
}

// read reads a job with its items, as the server does.
func read(t *testing.T, url string, request job.Request) store.Read {
	t.Helper()
	conn, err := store.Connect(t.Context(), url, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := store.Prepare(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	got, err := store.ReadJobs(t.Context(), conn, []job.Request{request})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func snapshot(t *testing.T, url string, id job.ID) job.Snapshot {
	t.Helper()
	return read(t, url, job.Request{ID: id}).Jobs[0]
}

func install(t *testing.T, url string, i store.Installation) {
	t.Helper()
	if err := store.Install(t.Context(), url, i); err != nil {
		t.Fatal(err)
	}
}
