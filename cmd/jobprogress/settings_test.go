package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

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
		if want := "(" + flag + ") " + taken.Addr().String() + " is in use"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it says %v, and not %q", err, want)
		}
	}
}
