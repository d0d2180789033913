package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"jobprogress/internal/pgtest"
)

// noSecret takes the place of the secret that serveForTest gives.
const noSecret = "--jwt-secret="

// The sessions of those who have a library for that, and of those who have a table.
func TestSessionsOfTheApplication(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		schema, cookie, value, query, revoke string
	}{
		"better-auth": {
			schema: `create table session (id text primary key, "userId" text not null, token text not null unique, "expiresAt" timestamptz not null);
				insert into session values ('1', '` + ada + `', 'hVtFkqZbXw', now() + '1 day'), ('2', '` + ada + `', 'expired', now() - interval '1 day'), ('3', '` + ben + `', 'bens', now() + '1 day')`,
			cookie: "better-auth.session_token",
			value:  "hVtFkqZbXw.c2lnbmVkIGJ5IHRoZSBhcHA%3D", // signed
			query:  `select "userId" from session where token = split_part($1, '.', 1) and "expiresAt" > now()`,
			revoke: `delete from session where token = 'hVtFkqZbXw'`,
		},
		"Lucia": {
			schema: `create table user_session (id text primary key, user_id uuid not null, expires_at timestamptz not null);
				insert into user_session values (encode(sha256('token'), 'hex'), '` + ada + `', now() + '1 day')`,
			cookie: "auth_session",
			value:  "token",
			query:  `select user_id from user_session where id = encode(sha256(convert_to($1, 'UTF8')), 'hex') and expires_at > now();`,
			revoke: `update user_session set expires_at = now()`,
		},
		"a plain table": {
			schema: `create table session (token uuid primary key, account_id uuid);
				insert into session values ('5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11', '` + ada + `'), ('5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e12', null)`,
			cookie: "session",
			value:  "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11",
			query:  `select account_id from session where token = $1::uuid -- of the application`,
			revoke: `truncate session`,
		},
		"tokens that must be converted": { // 22023, and 22P05 or 22021: any data exception is a token that is none
			schema: `create table session (token bytea primary key, account_id uuid);
				insert into session values ('\x00ff10', '` + ada + `')`,
			cookie: "session",
			value:  "AP8Q",
			query:  `select account_id from session where token = decode($1, 'base64')`,
			revoke: `truncate session`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			if _, err := pgtest.Pool(t, url).Exec(t.Context(), tt.schema); err != nil {
				t.Fatal(err)
			}
			s := serveForTest(t, url, noSecret, "--cookie", tt.cookie, "--session-query", tt.query, "--backstop-interval", "300ms")
			id := s.insert()
			cookie := []string{"Authorization: ", "Cookie: " + tt.cookie + "=" + tt.value}
			st := s.open(streamOf(id), cookie...)
			st.until("running")
			if response, _ := s.get("/api/jobs/"+id, "Authorization: Bearer "+strings.ReplaceAll(tt.value, "%3D", "=")); response.StatusCode != http.StatusOK {
				t.Errorf("as a bearer token: %s", response.Status)
			}
			for _, value := range []string{"wrong", "expired.x", "bens", "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e12", "' or true --", `\x00`, token(t, ada, time.Hour)} {
				response, body := s.get("/api/jobs/"+id, "Authorization: ", "Cookie: "+tt.cookie+"="+value)
				if want := map[bool]int{true: 404, false: 401}[value == "bens" && name == "better-auth"]; response.StatusCode != want {
					t.Errorf("%q: %s %s, want %d", value, response.Status, body, want)
				}
			}
			s.progress(id, 3)
			st.until(doneEvent(3))

			s.exec(tt.revoke)
			st.ends()
			if response, _ := s.get(streamOf(id), append(cookie, "Accept: text/event-stream")...); response.StatusCode != http.StatusUnauthorized {
				t.Errorf("after the session was revoked: %s", response.Status)
			}
			s.eventually("counted", func() bool { return s.metric(`jobprogress_streams_ended_total{reason="revoked"}`) == "1" })
		})
	}
}

func TestSessionsCannotBeRead(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := serveForTest(t, url, noSecret, "--session-query", "select account_id from sessions where token = $1", "--backstop-interval", "100ms")
	id := s.insert()
	if response, body := s.get("/api/jobs/" + id); response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "database_unavailable") {
		t.Errorf("without the table: %s %s", response.Status, body)
	}
	s.exec(`create table sessions (token text, account_id uuid)`)
	s.exec(`insert into sessions values ('t', $1)`, ada)
	st := s.open(streamOf(id), "Authorization: Bearer t")
	st.until("running")
	s.exec(`alter table sessions rename to away`)
	response, body := s.get(streamOf(id), "Authorization: Bearer t", "Accept: text/event-stream")
	if response.StatusCode != http.StatusOK || !strings.Contains(body, ": database_unavailable\n") {
		t.Errorf("EventSource is sent %s %q", response.Status, body)
	}
	s.progress(id, 3)
	st.until(doneEvent(3)) // who is in stays in
	select {
	case <-st.ended:
		t.Error("the stream ended")
	case <-time.After(300 * time.Millisecond): // a few checks
	}
}

func TestSessionQueryThatCannotWorkIsNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	for query, want := range map[string]string{
		"selec account_id from session where token = $1":  "JOBPROGRESS_SESSION_QUERY",
		"select account_id from nowhere where token = $1": "nowhere",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		log, stopped := make(lines, 100), make(chan error, 1)
		go func() {
			stopped <- run(ctx, []string{"serve", "--database-url", url, "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--session-query", query}, noEnv, nil, log)
		}()
		for line := ""; !strings.Contains(line, "the session query does not work"); {
			select {
			case line = <-log:
			case <-time.After(deadline):
				t.Fatal("the log does not say so")
			}
			if strings.Contains(line, "does not work") && !strings.Contains(line, want) {
				t.Errorf("%s does not name %s", line, want)
			}
		}
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
}

func TestTokensOfAPublicKey(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveForTest(t, pgtest.New(t), noSecret, "--jwt-public-key", file)
	id := s.insert()
	s.open(streamOf(id), bearer(t, key, "")).until("running")
	if response, _ := s.get(streamOf(id)); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token of another algorithm: %s", response.Status)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// bearer is a header with a token of Ada's.
func bearer(t *testing.T, key crypto.Signer, id string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": ada, "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = id
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: Bearer " + text
}

func TestKeyRotatedInTheMiddleOfAStream(t *testing.T) {
	t.Parallel()
	var published atomic.Pointer[[]byte]
	has := func(id string, key crypto.Signer) {
		one, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(map[string]any{"keys": []any{one.Marshal()}})
		if err != nil {
			t.Fatal(err)
		}
		published.Store(&text)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if text := published.Load(); text != nil {
			w.Write(*text)
			return
		}
		http.Error(w, "down", http.StatusServiceUnavailable)
	}))
	t.Cleanup(keys.Close)

	old, renewed := newKey(t), newKey(t)
	s := serveForTest(t, pgtest.New(t), noSecret, "--jwks-url", keys.URL, "--backstop-interval", "300ms")
	id := s.insert()
	response, body := s.get(streamOf(id), bearer(t, old, "old"), "Accept: text/event-stream")
	if response.StatusCode != http.StatusOK || !strings.Contains(body, ": keys_unavailable\n") {
		t.Errorf("while the keys can't be fetched EventSource is sent %s %q", response.Status, body)
	}
	if response, body := s.get("/api/jobs/"+id, bearer(t, old, "old")); response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("and others: %s %s", response.Status, body)
	}
	has("old", old)
	accepted := func(key crypto.Signer, kid string, want int) func() bool {
		return func() bool {
			response, _ := s.get("/api/jobs/"+id, bearer(t, key, kid))
			return response.StatusCode == want
		}
	}
	s.eventually("accepted", accepted(old, "old", http.StatusOK))
	st := s.open(streamOf(id), bearer(t, old, "old"))
	st.until("running")

	has("new", renewed)
	s.eventually("accepted", accepted(renewed, "new", http.StatusOK))
	st.ends()
	s.eventually("refused", accepted(old, "old", http.StatusUnauthorized))
}

// A key that is renewed on disk needs no restart, and one that is half written takes nobody's place.
func TestPublicKeyFileIsReadAgain(t *testing.T) {
	t.Parallel()
	old, renewed := newKey(t), newKey(t)
	file := filepath.Join(t.TempDir(), "key.pem")
	write := func(key *ecdsa.PrivateKey) {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(old)
	s := serveForTest(t, pgtest.New(t), noSecret, "--jwt-public-key", file, "--backstop-interval", "500ms")
	id := s.insert()
	status := func(key *ecdsa.PrivateKey) int {
		response, _ := s.get("/api/jobs/"+id, bearer(t, key, ""))
		return response.StatusCode
	}
	st := s.open(streamOf(id), bearer(t, old, ""))
	st.until("running")
	if err := os.WriteFile(file, []byte("-----BEGIN PUB"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * lookInterval)
	if got := status(old); got != http.StatusOK {
		t.Errorf("while it is written: %d", got)
	}
	write(renewed)
	s.eventually("the new key in use", func() bool { return status(renewed) == http.StatusOK })
	if got := status(old); got != http.StatusUnauthorized {
		t.Errorf("the key before: %d", got)
	}
	st.ends() // it was opened with a key that is none any more
}

// Who renews a file may set its rights a moment later: neither time nor size of the file change with them.
func TestFileThatCouldNotBeReadIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		var denied atomic.Bool
		load := func() (string, error) {
			if denied.Load() {
				return "", os.ErrPermission
			}
			text, err := os.ReadFile(file)
			return string(text), err
		}
		var log strings.Builder
		f := &files{log: slog.New(slog.NewTextHandler(&log, nil))}
		get := reload(f, "old", load, file)
		go f.run(t.Context())
		denied.Store(true)
		if err := os.WriteFile(file, []byte("renewed"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(lookInterval)
			synctest.Wait()
			if got := get(); got != "old" {
				t.Errorf("while it can't be read: %q", got)
			}
		}
		denied.Store(false)
		time.Sleep(lookInterval)
		synctest.Wait()
		if got := get(); got != "renewed" {
			t.Errorf("when it can be read: %q", got)
		}
		if n := strings.Count(log.String(), "can't be read"); n != 1 {
			t.Errorf("%d lines of the log", n)
		}
	})
}

func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	certFile, keyFile := certificate(t)
	newCertFile, newKeyFile := certificate(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	s := serveForTestWith(t, pgtest.New(t), client, "--tls-cert", certFile, "--tls-key", keyFile)
	shown := func() string {
		response, _ := s.get("/healthz")
		return string(response.TLS.PeerCertificates[0].Raw)
	}
	before := shown()
	for from, to := range map[string]string{newCertFile: certFile, newKeyFile: keyFile} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.eventually("the new certificate in use", func() bool { return shown() != before })
}
