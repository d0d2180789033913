package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

func TestInstallPrintsWhatItRuns(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	if err := store.Uninstall(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	script, err := output(t, noEnv, "install", "--database-url", url, "--table", "public.job", "--print")
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.Pool(t, url)
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Conn().PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
		t.Fatal(err)
	}
	installed := func() (installed bool) {
		if err := conn.QueryRow(t.Context(), `select to_regprocedure('jobprogress.item(uuid, text, text, text, text, bigint, bigint, bigint)') is not null`).Scan(&installed); err != nil {
			t.Fatal(err)
		}
		return installed
	}
	if !installed() {
		t.Error("the printed SQL does not install")
	}
	if _, err := output(t, noEnv, "uninstall", "--database-url", url); err != nil || installed() {
		t.Errorf("uninstall: %v, still there: %v", err, installed())
	}
	if _, err := output(t, noEnv, "install", "--database-url", url); err != nil || !installed() {
		t.Errorf("install: %v", err)
	}
}

func TestInstallWithTheGateOff(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	db := pgtest.Pool(t, url)
	for _, c := range []struct {
		gate string
		want bool
	}{{"", true}, {"off", false}, {"", false}, {"on", true}, {"", true}} { // without a setting it stays as it was
		gate, want := c.gate, c.want
		env := map[string]string{"JOBPROGRESS_GATE": gate}
		if _, err := output(t, func(name string) string { return env[name] }, "install", "--database-url", url); err != nil {
			t.Fatal(err)
		}
		var asks bool
		err := db.QueryRow(t.Context(), `select bool_and(pg_get_triggerdef(oid) like '%advisory%') from pg_trigger where tgrelid = 'job'::regclass and not tgisinternal`).Scan(&asks)
		if err != nil || asks != want {
			t.Errorf("gate %q: triggers ask who watches: %v, %v", gate, asks, err)
		}
	}
	if _, err := output(t, noEnv, "install", "--database-url", url, "--gate", "maybe"); err == nil || !strings.Contains(err.Error(), "--gate") {
		t.Errorf("error %v", err)
	}
}

func TestInstallExplainsPrintsAndMoves(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	pool := pgtest.Pool(t, databaseURL)
	_, err := pool.Exec(t.Context(), `create table "Job" (id bigint primary key, "userId" text, state text, "createdAt" timestamp(3));
		insert into "Job" select i, 'user ' || i % 3, (array['queued', 'done', 'odd'])[i % 3 + 1], '2026-01-02' from generate_series(1, 30) as i`)
	if err != nil {
		t.Fatal(err)
	}
	install := func(more ...string) (string, error) {
		return output(t, noEnv, append([]string{"install", "--database-url", databaseURL, "--table", `"Job"`}, more...)...)
	}
	flags := []string{"--owner", `job."userId"`, "--status", "job.state", "--statuses", "queued=pending,done=completed", "--type", "'sync'", "--created-at", `job."createdAt"`,
		"--progress", "null", "--error", "null", "--started-at", "null", "--completed-at", "null", "--updated-at", "null"}
	if _, err := install(flags...); err == nil || !strings.Contains(err.Error(), "--move") {
		t.Errorf("moves with %v", err)
	}
	text, err := install(append(flags, "--move", "--explain")...)
	for _, want := range []string{
		`Table public."Job", id id of type bigint.`, "Statuses of 30 rows: 10 completed, 10 odd, 10 pending.", `which user 0 may watch`,
		`"type":"sync","status":"completed"`, `"createdAt":"2026-01-02T00:00:00Z"`,
	} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%v: %s is not in\n%s", err, want, text)
		}
	}
	if n := strings.Count(text, "Job "); n != 3 {
		t.Errorf("%d jobs are shown", n)
	}
	attached := func() string {
		a, err := store.Attached(t.Context(), databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		return a.Table
	}
	if attached() != "public.job" {
		t.Errorf("explaining has attached %s", attached())
	}
	var locked int // to see the table, nobody waits
	if err := pool.QueryRow(t.Context(), `select count(*) from pg_trigger where tgrelid = '"Job"'::regclass`).Scan(&locked); err != nil || locked != 0 {
		t.Errorf("%d triggers after explaining, %v", locked, err)
	}
	script, err := install(append(flags, "--move", "--print")...)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(script, `\ir`) || attached() != "public.job" {
		t.Errorf("printed is no whole script, or it was run: %s", attached())
	}
	if _, err := pool.Exec(t.Context(), script, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if text, err := install(); err != nil || text != "jobprogress is attached to table public.\"Job\"\n" || attached() != `public."Job"` {
		t.Errorf("%q, %v", text, err)
	}
}
