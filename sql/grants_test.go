package sql_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

type (
	pgxConn   = pgconn.PgConn
	pgxNotice = pgconn.Notice
)

// role makes a role that has nothing, for as long as the test runs. Its password is its name.
func role(t *testing.T, admin *pgx.Conn, name string) string {
	t.Helper()
	name += "." + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	pgtest.Exec(t, admin, `create role `+quoted(name)+` login password '`+name+`'`)
	t.Cleanup(func() {
		admin.Exec(context.Background(), `drop owned by `+quoted(name)+` cascade; drop role `+quoted(name))
	})
	return name
}

// quoted is a role's name in SQL. Those of cloud providers need it.
func quoted(role string) string { return pgx.Identifier{role}.Sanitize() }

// The job table is somebody else's, and its row-level security denies all. The service's role and the worker's have
// nothing but what install grants.
func TestServiceAndWorkerNeedNothingElse(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	owner, service, worker := role(t, admin, "owner"), role(t, admin, "service"), role(t, admin, "worker")
	writer := role(t, admin, "writer")
	pgtest.Exec(t, admin, `create schema app; alter table job set schema app; alter table app.job owner to `+quoted(owner)+`;
		grant usage on schema app to `+quoted(writer)+`; grant select, update on app.job to `+quoted(writer)+`;
		create policy writers on app.job to `+quoted(writer)+` using (true)`)
	if err := store.Install(t.Context(), url, store.Installation{Table: "app.job", ServiceRole: service, WorkerRole: worker}); err != nil {
		t.Fatal(err)
	}
	id := uuid.NewString()
	pgtest.Exec(t, admin, `insert into app.job (id, account_id, type) values ($1, $2, 'matching')`, id, ada)

	serviceURL := pgtest.WithRole(url, service)
	listener := listen(t, serviceURL)
	if s := snapshot(t, serviceURL, job.ID(id)); !s.Found || s.State.Account != ada {
		t.Errorf("the service reads %+v", s)
	}
	pgtest.Exec(t, pgtest.Connect(t, pgtest.WithRole(url, worker)), `select jobprogress.item($1, 's1', 'song', 'queued')`, id)
	receives(t, listener, job.ID(id))
	pgtest.Exec(t, pgtest.Connect(t, pgtest.WithRole(url, writer)), `update app.job set status = 'running'`)
	receives(t, listener, job.ID(id))
	if s := snapshot(t, serviceURL, job.ID(id)); s.State.Status != job.Running || len(s.Items) != 1 {
		t.Errorf("the service reads %+v", s)
	}
	pgtest.Exec(t, pgtest.Connect(t, serviceURL), `select jobprogress.sweep()`)

	for who, statement := range map[string]string{
		service: `select jobprogress.item(gen_random_uuid(), 's1', 'song', 'queued')`,
		worker:  `select jobprogress.snapshot(array[gen_random_uuid()::text])`,
		writer:  `select jobprogress.snapshot(array[gen_random_uuid()::text])`,
	} {
		if _, err := pgtest.Connect(t, pgtest.WithRole(url, who)).Exec(t.Context(), statement); err == nil {
			t.Errorf("%s may %s", who, statement)
		}
	}
	for _, who := range []string{service, worker} {
		if _, err := pgtest.Connect(t, pgtest.WithRole(url, who)).Exec(t.Context(), `select * from app.job`); err == nil {
			t.Errorf("%s reads the table", who)
		}
	}
}

func TestRowsThatAreHiddenLaterAreAnErrorNotDeleted(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	owner := role(t, admin, "owner")
	var database string
	if err := admin.QueryRow(t.Context(), `select current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, `alter table job owner to `+quoted(owner)+`; grant create on database `+database+` to `+quoted(owner))
	ownerURL := pgtest.WithRole(url, owner)
	if err := store.Install(t.Context(), ownerURL, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, `alter table job force row level security`)
	if _, err := admin.Exec(t.Context(), `select * from jobprogress.snapshot(array[gen_random_uuid()::text])`); err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("error %v", err)
	}

	// Somebody else's schema is not built upon: its functions would run with other rights.
	other := role(t, admin, "other")
	pgtest.Exec(t, admin, `grant create on database `+database+` to `+quoted(other))
	if err := store.Install(t.Context(), pgtest.WithRole(url, other), store.Installation{Table: "job"}); err == nil || !strings.Contains(err.Error(), "not owned by") {
		t.Errorf("installed into another's schema: %v", err)
	}
}

// The owner of the table can put a view in its place. What that does must not be done with the rights of a superuser.
func TestSuperuserInstallsForTheOwnerOfTheTable(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	owner := role(t, admin, "owner")
	pgtest.Exec(t, admin, `create schema app authorization `+quoted(owner)+`; alter table job set schema app; alter table app.job owner to `+quoted(owner))
	for range 2 {
		install(t, url, store.Installation{Table: "app.job"})
	}
	id := uuid.NewString()
	pgtest.Exec(t, admin, `insert into app.job (id, account_id, type) values ($1, $2, 'matching')`, id, ada)
	if s := snapshot(t, url, job.ID(id)); !s.Found {
		t.Error("the job is not found")
	}
	conn := pgtest.Connect(t, pgtest.WithRole(url, owner))
	pgtest.Exec(t, conn, `alter table app.job rename to job_table;
		create function app.who() returns text language sql as 'select current_user::text';
		create view app.job as select id, account_id, type, status, progress, app.who() as error, created_at, started_at, completed_at, updated_at from app.job_table`)
	if s := snapshot(t, url, job.ID(id)); s.State.Error != owner {
		t.Errorf("the owner's function runs as %s", s.State.Error)
	}
}

func TestDefaultPrivilegesGrantNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	anon, service := role(t, admin, "anon"), role(t, admin, "service")
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, `alter default privileges grant execute on functions to `+quoted(anon)+`; alter default privileges grant usage on schemas to `+quoted(anon)+`;
		alter default privileges grant select on tables to `+quoted(anon))
	may := func(who string) bool {
		return pgtest.Query[bool](t, admin, `select has_function_privilege($1, 'jobprogress.snapshot(text[], text[], text[])', 'execute')`, who)
	}
	for range 2 {
		install(t, url, store.Installation{Table: "job"})
		if may(anon) {
			t.Error("anon may read jobs")
		}
		if pgtest.Query[bool](t, admin, `select has_table_privilege($1, 'jobprogress.item_log', 'select, insert, update, delete')`, anon) {
			t.Error("anon may read or write items")
		}
		pgtest.Exec(t, admin, `grant usage on schema jobprogress to `+quoted(service)+`; grant execute on function jobprogress.snapshot(text[], text[], text[]) to `+quoted(service))
	}
	if !may(service) {
		t.Error("installing again took a grant away")
	}
}

func TestInstallNeedsToSeeTheRows(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	owner, other := role(t, admin, "owner"), role(t, admin, "other")
	var database string
	if err := admin.QueryRow(t.Context(), `select current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, `alter table job owner to `+quoted(owner)+`; grant select, trigger on job to `+quoted(other)+`;
		grant create on database `+database+` to `+quoted(owner)+`, `+quoted(other))

	err := store.Install(t.Context(), pgtest.WithRole(url, other), store.Installation{Table: "job"})
	if err == nil || !strings.Contains(err.Error(), "BYPASSRLS") {
		t.Errorf("installed by a role that sees no row: %v", err)
	}
	if err := store.Install(t.Context(), pgtest.WithRole(url, owner), store.Installation{Table: "job"}); err != nil {
		t.Errorf("installed by the owner: %v", err)
	}
}
