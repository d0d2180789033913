package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/pgtest/network"
	"jobprogress/internal/store"
)

// findings runs check, and returns what it finds by its code.
func findings(t *testing.T, args ...string) map[string]store.Finding {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append([]string{"check", "--json"}, args...), noEnv, &out, io.Discard)
	var r report
	if decodeErr := json.Unmarshal(out.Bytes(), &r); decodeErr != nil {
		t.Fatalf("%v; %v: %s", err, decodeErr, out.Bytes())
	}
	found := make(map[string]store.Finding)
	fault := false
	for _, f := range r.Findings {
		found[f.Code] = f
		fault = fault || f.Fault
		if !strings.HasSuffix(f.What, ".") || !strings.HasSuffix(f.Advice, ".") || f.Code == "" {
			t.Errorf("finding %+v is no sentence", f)
		}
	}
	if fault != errors.Is(err, errFault) {
		t.Errorf("ends with %v after %+v", err, r.Findings)
	}
	return found
}

func TestCheckFindsNothingWrong(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	serveForTest(t, databaseURL).insert()
	if found := findings(t, "--database-url", databaseURL); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	text, err := output(t, noEnv, "check", "--database-url", databaseURL)
	if err != nil || !strings.HasPrefix(text, "ok: attached to table public.job") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestCheckFindsEachFault(t *testing.T) {
	t.Parallel()
	const fill = `insert into job (id, account_id, type, status, progress, created_at, started_at, completed_at, updated_at)
		select gen_random_uuid(), id, 'matching', 'completed', '{"total": 1}', now() - interval '1 hour', now(), now(), now() from account;`
	for name, tt := range map[string]struct {
		setup string // may use role "r"
		args  []string
		code  string
		fault bool
		want  string // in the sentence
	}{
		"missing":                    {`drop schema jobprogress cascade`, nil, "not_installed", true, "not installed"},
		"older install":              {`create or replace function jobprogress.attachment() returns jsonb language sql as 'select jsonb_build_object(''version'', 2)'`, nil, "outdated", true, "older"},
		"newer install":              {`create or replace function jobprogress.attachment() returns jsonb language sql as 'select jsonb_build_object(''version'', 99)'`, nil, "newer", true, "newer"},
		"trigger disabled":           {`alter table job disable trigger jobprogress`, nil, "trigger_disabled", true, "Trigger jobprogress on job is disabled"},
		"trigger dropped":            {`drop trigger jobprogress_insert on job`, nil, "trigger_missing", true, "no trigger jobprogress_insert"},
		"trigger for replicas":       {`alter table job enable replica trigger jobprogress`, nil, "trigger_replica", true, "replicated changes only"},
		"outdated trigger":           {`create or replace trigger jobprogress after update on job for each row execute function jobprogress.notify_job()`, nil, "trigger_outdated", true, "Trigger jobprogress on job"},
		"swapped table":              {`create table job_new (like job including all); alter table job rename to job_old; alter table job_new rename to job`, nil, "table_swapped", true, "on job_old, and not on public.job"},
		"dropped table":              {`drop table job`, nil, "table_missing", true, "public.job does not exist"},
		"missing rights":             {`create schema x`, []string{"--service-role", "pg_monitor"}, "no_rights", true, "Role pg_monitor may not call jobprogress."},
		"missing rights of a worker": {`create schema x`, []string{"--worker-role", "pg_monitor"}, "no_rights", true, "Role pg_monitor may not call jobprogress.item("},
		"a role that is not there":   {`create schema x`, []string{"--worker-role", "nobody here"}, "no_rights", true, "Role nobody here does not exist."},
		"row-level security": {`alter table job force row level security; create role "%d" nologin; grant "%d" to current_user; grant all on schema public to "%d";
			alter table job owner to "%d"; alter function jobprogress.snapshot(text[], text[], text[]) owner to "%d"`, nil, "row_security", true, "hides rows of public.job"},
		"updated_at":                 {fill + `update job set updated_at = created_at`, nil, "updated_at", false, "updated_at of 2 of 2 jobs"},
		"column renamed":             {`alter table job rename error to reason`, nil, "column_missing", true, "Column error"},
		"column renamed, unreadable": {`alter table job rename error to reason`, nil, "unreadable", true, "job.error does not exist"},
		"column retyped":             {`alter table job alter type type text`, nil, "column_retyped", false, "Column type was of type public.job_type when jobprogress was installed, and is text"},
		"index dropped":              {`alter table job drop constraint job_pkey`, nil, "id_index", true, "no index that begins with id"},
		"publication":                {`create publication everything for all tables`, nil, "publication", false, "Publication everything"},
		"children":                   {`create table child () inherits (job)`, nil, "trigger_missing", true, "Table child has no trigger"},
		"children without an index":  {`create table child () inherits (job)`, nil, "id_index", true, "Table child has no index"},
		"function revoked":           {`revoke execute on function pg_try_advisory_lock(integer, integer) from public`, nil, "revoked", true, "pg_try_advisory_lock(integer,integer)"},
		"silenced role":              {`create role "%d" nologin; alter role "%d" set jobprogress.notify = off`, nil, "silenced", false, "jobprogress.notify=off is set for role"},
		"function dropped":           {`drop function jobprogress.unwatched(integer)`, nil, "function_missing", true, "jobprogress.unwatched is missing"},
		"item log dropped":           {`drop table jobprogress.item_log`, nil, "item_log_missing", true, "item_log is missing"},
		"unlogged":                   {`alter table job set unlogged`, nil, "unlogged", false, "is unlogged"},
		"nobody's jobs":              {fill + `alter table job alter account_id drop not null; update job set account_id = null`, nil, "no_owner", false, "None of 2 jobs has an owner"},
		"no progress":                {fill + `update job set progress = '{}'`, nil, "no_progress", false, "None of 2 jobs has a progress"},
		"owner without an index":     {`drop index job_account_id`, nil, "owner_index", false, "No index begins with the owner"},
		"odd status":                 {fill + `alter table job alter status drop default, alter status type text; update job set status = 'cancelled'`, nil, "status", false, `Status "cancelled"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			databaseURL := pgtest.New(t)
			pool := pgtest.Pool(t, databaseURL)
			role := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_"))
			setup := strings.ReplaceAll(tt.setup, "%d", role)
			if strings.Contains(tt.setup, "%d") {
				t.Cleanup(func() {
					pool.Exec(context.Background(), `drop owned by "`+role+`" cascade`)
					pool.Exec(context.Background(), `drop role "`+role+`"`)
				})
			}
			if _, err := pool.Exec(t.Context(), setup); err != nil {
				t.Fatal(err)
			}
			found := findings(t, append([]string{"--database-url", databaseURL}, tt.args...)...)
			f, ok := found[tt.code]
			if !ok || f.Fault != tt.fault || !strings.Contains(f.What, tt.want) {
				t.Errorf("found %+v", found)
			}
		})
	}
}

// The service's role has nothing but what install grants: not even usage of the table's schema.
func TestCheckAsTheServiceRole(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	pool := pgtest.Pool(t, databaseURL)
	role := strings.ToLower(t.Name())
	t.Cleanup(func() {
		pool.Exec(context.Background(), `drop owned by `+role+` cascade`)
		pool.Exec(context.Background(), `drop role `+role)
	})
	if _, err := pool.Exec(t.Context(), `create role `+role+` login password '`+role+`'; create schema app; alter table job set schema app`); err != nil {
		t.Fatal(err)
	}
	attach(t, databaseURL, store.Installation{Table: "app.job", ServiceRole: role})
	roleURL := pgtest.WithRole(databaseURL, role)
	if found := findings(t, "--database-url", roleURL, "--service-role", role); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	if _, err := pool.Exec(t.Context(), `alter table app.job disable trigger jobprogress`); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, "--database-url", roleURL); !found["trigger_disabled"].Fault || len(found) > 1 {
		t.Errorf("found %+v", found)
	}
	s := serveForTest(t, roleURL)
	s.eventually("found", func() bool { return s.metric(`jobprogress_findings{code="trigger_disabled"}`) == "1" })
}

func TestCheckNamesLocksOfSomebodyElse(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	pool := pgtest.Pool(t, pgtest.With(databaseURL, "application_name", "leftover"))
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `select pg_advisory_lock_shared($1, 7)`, store.LockClass); err != nil {
		t.Fatal(err)
	}
	if f := findings(t, "--database-url", databaseURL)["foreign_locks"]; !strings.Contains(f.What, "(leftover) holds 1 advisory locks") {
		t.Errorf("found %+v", f)
	}
}

func TestCheckNamesAPooler(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	pooler := network.Pooler(t, databaseURL, "transaction", "")
	if f := findings(t, "--database-url", databaseURL, "--listen-database-url", pooler); !f["not_heard"].Fault {
		t.Errorf("found %+v", f)
	}
}

func TestCheckNamesAFullLockTable(t *testing.T) {
	t.Parallel()
	_, databaseURL := pgtest.Own(t, "max_locks_per_transaction=10", "max_connections=10")
	pool := pgtest.Pool(t, databaseURL)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `select pg_advisory_lock(1, n) from generate_series(1, 90) as n`); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, "--database-url", databaseURL); !found["lock_table"].Fault {
		t.Errorf("found %+v", found)
	}
}

func TestCheckNamesASubscription(t *testing.T) {
	t.Parallel()
	server, databaseURL := pgtest.Own(t, "wal_level=logical")
	publisher, err := pgtest.CreateInstalled(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	publisherURL := pgtest.WithDatabase(server.URL, publisher)
	for _, one := range []struct{ url, text string }{
		{publisherURL, `create publication p for table job`},
		{publisherURL, `select pg_create_logical_replication_slot('s', 'pgoutput')`},
		{databaseURL, `create subscription incoming connection '` + publisherURL + `' publication p with (create_slot = false, slot_name = 's', copy_data = false)`},
	} {
		if _, err := pgtest.Pool(t, one.url).Exec(t.Context(), one.text); err != nil {
			t.Fatal(err)
		}
	}
	if f := findings(t, "--database-url", databaseURL)["subscription"]; !f.Fault || !strings.Contains(f.What, "writes to job") {
		t.Errorf("found %+v", f)
	}
	if _, err := pgtest.Pool(t, databaseURL).Exec(t.Context(), `alter table job enable always trigger jobprogress; alter table job enable always trigger jobprogress_insert`); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, "--database-url", databaseURL); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

func TestCheckNamesADatabaseThatCannotNotify(t *testing.T) {
	t.Parallel()
	if f := findings(t, "--database-url", "postgres://nobody@127.0.0.1:1/none")["unreachable"]; !f.Fault {
		t.Errorf("found %+v", f)
	}
	server, databaseURL := pgtest.Own(t)
	if f := findings(t, "--database-url", databaseURL, "--listen-database-url", pgtest.With(databaseURL, "default_transaction_read_only", "on"))["not_primary"]; !strings.Contains(f.What, "read-only") {
		t.Errorf("found %+v", f)
	}
	pool := pgtest.Pool(t, databaseURL)
	var data string
	if err := pool.QueryRow(t.Context(), `show data_directory`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `copy (select) to '`+data+`/standby.signal'`); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Halt(t.Context(), false), server.Resume(t.Context())); err != nil {
		t.Fatal(err)
	}
	if f := findings(t, "--database-url", databaseURL)["not_primary"]; !strings.Contains(f.What, "standby") {
		t.Errorf("found %+v", f)
	}
}

// The server says the same by itself.
func TestServerSaysWhatItFinds(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.New(t)
	pool := pgtest.Pool(t, databaseURL)
	if _, err := pool.Exec(t.Context(), `alter table job disable trigger jobprogress`); err != nil {
		t.Fatal(err)
	}
	s := serveForTest(t, databaseURL)
	s.eventually("found", func() bool { return s.metric(`jobprogress_findings{code="trigger_disabled"}`) == "1" })
}

// stands is a proxy in front of a server, and what it does to answers.
func stands(t *testing.T, s *server, change func(*http.Response) error, flush time.Duration) string {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: change,
		FlushInterval:  flush,
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	return front.URL
}

// held is a body that is held back.
type held struct {
	io.ReadCloser
	after int // bytes that come through
}

func (h *held) Read(p []byte) (int, error) {
	if h.after == 0 {
		return io.ReadFull(h.ReadCloser, make([]byte, 1<<20))
	}
	n, err := h.ReadCloser.Read(p[:min(len(p), h.after)])
	h.after -= n
	return n, err
}

func TestCheckOfTheWayToAStream(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--ping-interval", "1s")
	id := s.insert()
	header := func(name, value string) func(*http.Response) error {
		return func(r *http.Response) error {
			r.Header.Set(name, value)
			return nil
		}
	}
	for name, tt := range map[string]struct {
		change func(*http.Response) error
		wait   string
		want   []string // codes
	}{
		"nothing in between": {func(*http.Response) error { return nil }, "30s", []string{"http_1"}},
		"another type":       {header("Content-Type", "text/html"), "30s", []string{"content_type"}},
		"compressed": {func(r *http.Response) error {
			r.Header.Set("Content-Encoding", "gzip")
			var b bytes.Buffer
			gzip.NewWriter(&b).Close()
			r.Body = io.NopCloser(&b)
			return nil
		}, "30s", []string{"compressed"}},
		"cached":           {header("Cache-Control", "public"), "30s", []string{"cache_control", "http_1"}},
		"buffers":          {func(r *http.Response) error { r.Body = &held{r.Body, 0}; return nil }, "30s", []string{"buffered", "http_1"}},
		"holds pings back": {func(r *http.Response) error { r.Body = &held{r.Body, 20}; return nil }, "4s", []string{"http_1", "no_ping"}},
		"cuts": {func(r *http.Response) error {
			r.Body = io.NopCloser(io.LimitReader(r.Body, 30))
			return nil
		}, "30s", []string{"cut", "http_1"}},
		"refuses": {func(r *http.Response) error {
			r.StatusCode, r.Status = http.StatusBadGateway, "502 Bad Gateway"
			r.Body = io.NopCloser(strings.NewReader("oops"))
			return nil
		}, "30s", []string{"status"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := findings(t, "--url", stands(t, s, tt.change, -1)+"/api/jobs/"+id, "--token", token(t, ada, time.Hour), "--wait", tt.wait)
			if codes := slices.Sorted(maps.Keys(found)); !slices.Equal(codes, tt.want) {
				t.Errorf("found %+v", found)
			}
		})
	}
	t.Run("says what it measured", func(t *testing.T) {
		t.Parallel()
		text, err := output(t, noEnv, "check", "--url", s.url+streamOf(id), "--token", token(t, ada, time.Hour))
		for _, want := range []string{"HTTP version: HTTP/1.1\n", "head after: ", "first event after: ", "ping after: "} {
			if err != nil || !strings.Contains(text, want) {
				t.Errorf("%v: %s", err, text)
			}
		}
	})
	t.Run("a server that has viewers come back later", func(t *testing.T) {
		t.Parallel()
		away := serveForTest(t, pgtest.New(t), "--max-streams", "1")
		id := away.insert()
		away.open(streamOf(id))
		if f := findings(t, "--url", away.url+streamOf(id), "--token", token(t, ada, time.Hour)); !strings.Contains(f["refused"].What, "over_capacity") || len(f) != 2 {
			t.Errorf("found %+v", f)
		}
	})
	t.Run("a token that is none", func(t *testing.T) {
		t.Parallel()
		if f := findings(t, "--url", s.url+streamOf(id), "--token", "x")["status"]; !strings.Contains(f.What, "401") {
			t.Errorf("found %+v", f)
		}
	})
	t.Run("a job that has ended", func(t *testing.T) {
		t.Parallel()
		ended := s.insert()
		s.exec(`update job set status = 'completed' where id = $1`, ended)
		if f := findings(t, "--url", s.url+streamOf(ended), "--token", token(t, ada, time.Hour)); len(f["ended"].What) == 0 {
			t.Errorf("found %+v", f)
		}
	})
}
