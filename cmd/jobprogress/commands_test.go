package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/pgtest"
)

// output runs a command to its end.
func output(t *testing.T, getenv func(string) string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, getenv, &out, io.Discard)
	return out.String(), err
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
