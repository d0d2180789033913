package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/auth"
	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

// output runs a command to its end.
func output(t *testing.T, getenv func(string) string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, getenv, &out, io.Discard)
	return out.String(), err
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	env := map[string]string{"JOBPROGRESS_WRITE_TIMEOUT": "soon", "JOBPROGRESS_INSECURE_NO_AUTH": "perhaps", "JOBPROGRESS_MAX_STREAMS": "many", "DATABASE_URL": "postgres://u:hidden@x:port/d"}
	_, err := output(t, func(name string) string { return env[name] },
		"serve", "--addr", "nowhere", "--ping-interval", "1ms", "--tls-cert", "x.pem", "--allowed-origins", "https://*.example,https://ok.example", "--log-format", "xml")
	if !errors.Is(err, errUsage) {
		t.Fatalf("error %v is no fault of the settings", err)
	}
	for _, want := range []string{
		`JOBPROGRESS_WRITE_TIMEOUT (--write-timeout) "soon" is not a duration like 30s`,
		`JOBPROGRESS_MAX_STREAMS (--max-streams) "many" is not a whole number`,
		`JOBPROGRESS_ADDR (--addr) "nowhere" is not host:port`,
		`JOBPROGRESS_PING_INTERVAL (--ping-interval) 1ms is less than 100ms`,
		`JOBPROGRESS_TLS_CERT (--tls-cert) goes together with`,
		`JOBPROGRESS_INSECURE_NO_AUTH (--insecure-no-auth) "perhaps" is not true or false`,
		`"https://*.example" is not exact`,
		`JOBPROGRESS_LOG_FORMAT (--log-format) "xml" is not text or json`,
		`JOBPROGRESS_JWT_SECRET (--jwt-secret) is missing`,
		`DATABASE_URL (--database-url)`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if strings.Count(err.Error(), "soon") != 1 {
		t.Errorf("a fault is named twice:\n%v", err)
	}
	if strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "ok.example") {
		t.Errorf("the error says too much:\n%v", err)
	}
}

func TestEmptyVariablesMeanTheDefault(t *testing.T) {
	for _, name := range []string{"JOBPROGRESS_ADDR", "JOBPROGRESS_ADMIN_ADDR", "JOBPROGRESS_PING_INTERVAL", "JOBPROGRESS_LOG_FORMAT"} {
		t.Setenv(name, "") // kong must not look there
	}
	t.Setenv("JOBPROGRESS_COOKIE", "not this one")
	c, err := parse([]string{"serve", "--insecure-no-auth"}, noEnv, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	got := c.(*serveCommand)
	if got.Addr != "127.0.0.1:8080" || got.AdminAddr != "127.0.0.1:8081" || got.PingInterval != 30*time.Second || got.Cookie != "session" {
		t.Errorf("settings %+v", got)
	}
}

func TestNoAuthenticationIsRefusedOffLoopback(t *testing.T) {
	t.Parallel()
	for addr, refused := range map[string]bool{":8080": true, "0.0.0.0:8080": true, "192.0.2.1:80": true, "[::]:80": true,
		"127.0.0.1:1": false, "localhost:1": false, "[::1]:1": false, "127.9.9.9:1": false} {
		c := &serveCommand{Addr: addr, AdminAddr: addr, InsecureNoAuth: true}
		got := false
		for _, f := range c.validate() {
			got = got || strings.Contains(f.Error(), "only a loopback address")
		}
		if got != refused {
			t.Errorf("%s refused: %v, want %v", addr, got, refused)
		}
	}
}

func TestHelpListsEverySetting(t *testing.T) {
	t.Parallel()
	help, err := output(t, noEnv, "serve", "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"$DATABASE_URL", "$LISTEN_DATABASE_URL", "$JOBPROGRESS_ADDR", "127.0.0.1:8080", "$JOBPROGRESS_PING_INTERVAL", "30s", "$JOBPROGRESS_JWT_SECRET"} {
		if !strings.Contains(help, want) {
			t.Errorf("%s is not in\n%s", want, help)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"version", "--version"} {
		out, err := output(t, noEnv, args)
		if err != nil || !regexp.MustCompile(`^jobprogress .+\nrevision .+\nSQL version \d+\nbuilt with go1\.`).MatchString(out) {
			t.Errorf("%s: %v, %q", args, err, out)
		}
	}
}

func TestReadyAsksTheServer(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	addr := strings.TrimPrefix(s.url, "http://")
	if out, err := output(t, noEnv, "ready", "--addr", addr); err != nil || out != "ready\n" {
		t.Errorf("%v, %q", err, out)
	}
	_, port, _ := strings.Cut(addr, ":")
	if out, err := output(t, noEnv, "ready", "--addr", ":"+port); err != nil || out != "ready\n" {
		t.Errorf("a server on all addresses: %v, %q", err, out)
	}
	unready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "draining", http.StatusServiceUnavailable)
	}))
	defer unready.Close()
	if _, err := output(t, noEnv, "ready", "--addr", strings.TrimPrefix(unready.URL, "http://")); err == nil || err.Error() != "draining" {
		t.Errorf("an unready server: %v", err)
	}
	if _, err := output(t, noEnv, "ready", "--addr", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no server answers") {
		t.Errorf("no server: %v", err)
	}
	tls := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ready\n") }))
	defer tls.Close()
	if out, err := output(t, noEnv, "ready", "--addr", strings.TrimPrefix(tls.URL, "https://"), "--tls-cert", "x.pem"); err != nil || out != "ready\n" {
		t.Errorf("with TLS: %v, %q", err, out)
	}
}

func TestTokenIsOneThatServeTakes(t *testing.T) {
	t.Parallel()
	env := map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "JOBPROGRESS_JWT_ISSUER": "app", "JOBPROGRESS_JWT_AUDIENCE": "jobs"}
	out, err := output(t, func(name string) string { return env[name] }, "token", ada, "--ttl", "1m")
	if err != nil {
		t.Fatal(err)
	}
	r := (&server{t: t}).request("/", "Authorization: Bearer "+strings.TrimSpace(out))
	v, err := auth.JWT{Keys: auth.Secret(secret), Claim: "sub", Issuer: "app", Audience: "jobs"}.Authenticate(r)
	if err != nil || v.Account != ada || time.Until(v.Expires) > time.Minute {
		t.Errorf("viewer %+v, %v", v, err)
	}
	if _, err := output(t, noEnv, "token", ada); err == nil {
		t.Error("a token without a secret")
	}
}

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

func TestSimulateAndWatch(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	simulated := make(chan string, 1)
	go func() {
		out, err := output(t, noEnv, "simulate", "--database-url", s.db.Config().ConnString(), "--count", "10", "--parallel", "5",
			"--items", "30", "--rate", "20", "--failure-rate", "0")
		if err != nil {
			t.Error(err)
		}
		simulated <- out
	}()
	var id string
	s.eventually("begun", func() bool {
		return s.db.QueryRow(t.Context(), `select id::text from job where status = 'running' limit 1`).Scan(&id) == nil
	})
	watched, err := output(t, noEnv, "watch", id, "--url", s.url, "--token", token(t, ada, time.Hour))
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{`progress \d+/\d+ succeeded \d+ failed 0`, `in_progress .`, `status completed\n\z`} {
		if !regexp.MustCompile(want).MatchString(watched) {
			t.Errorf("watch does not say %s:\n%s", want, watched)
		}
	}
	out := <-simulated
	if strings.Count(out, "\n") != 10 {
		t.Errorf("simulate says\n%s", out)
	}
	var types, ended int
	err = s.db.QueryRow(t.Context(), `select count(distinct type), count(*) filter (where status in ('completed', 'failed') and completed_at is not null
		and (progress->>'done')::int = (progress->>'succeeded')::int + (progress->>'failed')::int) from job`).Scan(&types, &ended)
	if err != nil || types != 5 || ended != 10 {
		t.Errorf("%d types, %d jobs ended, %v", types, ended, err)
	}

	out, err = output(t, noEnv, "simulate", "--database-url", s.db.Config().ConnString(), "--count", "1", "--rate", "100", "--failure-rate", "1")
	if err != nil || !strings.HasSuffix(out, " failed\n") {
		t.Errorf("simulate says %q, %v", out, err)
	}
	id, _, _ = strings.Cut(out, " ")
	watched, err = output(t, noEnv, "watch", id, "--url", s.url, "--token", token(t, ada, time.Hour))
	if err == nil || !strings.Contains(err.Error(), "503 three times") || !strings.HasSuffix(watched, "status failed\n") {
		t.Errorf("watch ends with %v after\n%s", err, watched)
	}
}

func TestSimulateThatIsStoppedLeavesNoJobRunning(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	db := pgtest.Pool(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() {
		stopped <- run(ctx, []string{"simulate", "--database-url", url}, noEnv, io.Discard, io.Discard)
	}()
	count := func(condition string) (n int) {
		if err := db.QueryRow(t.Context(), `select count(*) from job where `+condition).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for end := time.Now().Add(deadline); count(`status = 'running'`) < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if left := count(`status in ('pending', 'running')`); left != 0 {
		t.Errorf("%d jobs left running", left)
	}
}

func TestWatchSaysWhyItCant(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	for want, args := range map[string][]string{
		"401":               {"watch", id, "--url", s.url},
		"no such job":       {"watch", "00000000-0000-4000-8000-000000000000", "--url", s.url, "--token", token(t, ada, time.Hour)},
		"UUID of 36":        {"watch", "x", "--url", s.url, "--token", token(t, ada, time.Hour)},
		"200 bytes":         {"watch", strings.Repeat("x", 201), "--url", s.url},
		"is not valid":      {"watch", id, "--url", s.url, "--token", "x"},
		"is not like https": {"watch", id, "--url", "here"},
	} {
		if _, err := output(t, noEnv, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

func TestMetricsAndProfilesAreForTheOperatorOnly(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if response, _ := s.get(path); response.StatusCode != http.StatusNotFound {
			t.Errorf("%s on the public address: %s", path, response.Status)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.admin+"/debug/pprof/cmdline", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, body := s.do(r); response.StatusCode != http.StatusNotFound {
		t.Errorf("the command line, with its secrets, is shown: %q", body)
	}
	if s.metric("jobprogress_bus_live") != "1" || s.metric("go_goroutines") == "" {
		t.Error("metrics are missing")
	}
	if response, body := s.get("/healthz"); response.StatusCode != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz: %s %s", response.Status, body)
	}
}

func TestFaultsOfTheWaysToSayWhoIsAsking(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"JOBPROGRESS_JWT_SECRET, JOBPROGRESS_SESSION_QUERY contradict each other: choose one":                    {"--jwt-secret", secret, "--session-query", "select $1"},
		`JOBPROGRESS_JWT_PUBLIC_KEY (--jwt-public-key) open nowhere.pem`:                                         {"--jwt-public-key", "nowhere.pem"},
		`JOBPROGRESS_JWT_PUBLIC_KEY (--jwt-public-key) main_test.go: there is no PEM in it`:                      {"--jwt-public-key", "main_test.go"},
		`JOBPROGRESS_JWKS_URL (--jwks-url) is not a URL`:                                                         {"--jwks-url", "keys.example.com"},
		`JOBPROGRESS_SESSION_QUERY (--session-query) does not use $1`:                                            {"--session-query", "select account_id from session where token = '$12'"},
		`knows no JOBPROGRESS_JWT_ISSUER`:                                                                        {"--session-query", "select $1", "--jwt-issuer", "x"},
		`JOBPROGRESS_INSECURE_NO_AUTH (--insecure-no-auth) contradicts JOBPROGRESS_JWKS_URL: choose one`:         {"--insecure-no-auth", "--jwks-url", "https://x"},
		"or JOBPROGRESS_JWT_PUBLIC_KEY, JOBPROGRESS_JWKS_URL, JOBPROGRESS_AUTH_URL or JOBPROGRESS_SESSION_QUERY": {},
		`JOBPROGRESS_JWT_PREVIOUS_SECRET (--jwt-previous-secret) goes together with --jwt-secret`:                {"--jwt-public-key", "main_test.go", "--jwt-previous-secret", secret},
		`JOBPROGRESS_AUTH_URL (--auth-url) is not a URL`:                                                         {"--auth-url", "app.example.com/whoami"},
		"JOBPROGRESS_JWKS_URL, JOBPROGRESS_AUTH_URL contradict each other: choose one":                           {"--jwks-url", "https://x", "--auth-url", "https://y"},
		`JOBPROGRESS_AUTH_URL (--auth-url) knows no JOBPROGRESS_JWT_ISSUER`:                                      {"--auth-url", "https://y", "--jwt-audience", "x"},
		`DATABASE_URL (--database-url) is no URL`:                                                                {"--jwt-secret", secret, "--database-url", "owner:x@127.0.0.1:5432/app?sslmode=disable"},
		`JOBPROGRESS_LAME_DUCK (--lame-duck) -1s is negative`:                                                    {"--jwt-secret", secret, "--lame-duck=-1s"},
		`JOBPROGRESS_MAX_STREAM_AGE (--max-stream-age) 10ms is neither 0 nor at least 1s`:                        {"--jwt-secret", secret, "--max-stream-age", "10ms"},
	} {
		if _, err := output(t, noEnv, append([]string{"serve"}, args...)...); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
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

func TestBarNamesTheJob(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11": "5f0c3a52", "1": "1", "100000001": "100000001", "é": "é", "a\x1b[31mb": "a [31mb",
	} {
		if got := shortID(id); got != want {
			t.Errorf("%q is shown as %q", id, got)
		}
		newOneBar(os.Stdout, id).close()
	}
}

func TestAddressInUseIsNamed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--addr", "--admin-addr"} {
		args := []string{"serve", "--database-url", "postgres://127.0.0.1:1/none", "--jwt-secret", secret, "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", flag, taken.Addr().String()}
		err := run(t.Context(), args, noEnv, io.Discard, io.Discard)
		if want := flag + " " + taken.Addr().String() + " is in use"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it says %v, and not %q", err, want)
		}
	}
}
