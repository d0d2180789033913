package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"jobprogress/internal/pgtest"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	mine := s.insert()
	theirs := s.insert()
	s.exec(`update job set account_id = $2 where id = $1`, theirs, ben)
	nobodys := uuid.NewString()

	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + token
	}
	key, later, earlier := []byte(secret), time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	var cases sync.WaitGroup
	for name, tt := range map[string]struct {
		path    string
		headers []string
		status  int
		code    string
	}{
		"no credentials":        {streamOf(mine), []string{"Authorization: "}, 401, "unauthenticated"},
		"no token":              {streamOf(mine), []string{"Authorization: x"}, 401, "unauthenticated"},
		"basic":                 {streamOf(mine), []string{"Authorization: Basic eDp5"}, 401, "unauthenticated"},
		"another key":           {streamOf(mine), []string{sign(jwt.SigningMethodHS256, []byte("wrong"), jwt.MapClaims{"sub": ada, "exp": later})}, 401, "unauthenticated"},
		"expired":               {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": ada, "exp": earlier})}, 401, "unauthenticated"},
		"not yet valid":         {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": ada, "exp": later, "nbf": later})}, 401, "unauthenticated"},
		"never expires":         {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": ada})}, 401, "unauthenticated"},
		"algorithm none":        {streamOf(mine), []string{sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.MapClaims{"sub": ada, "exp": later})}, 401, "unauthenticated"},
		"another algorithm":     {streamOf(mine), []string{sign(jwt.SigningMethodHS512, key, jwt.MapClaims{"sub": ada, "exp": later})}, 401, "unauthenticated"},
		"account is a fraction": {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": 7.5, "exp": later})}, 401, "unauthenticated"},
		"account is a boolean":  {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": true, "exp": later})}, 401, "unauthenticated"},
		"account is a number":   {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": 7, "exp": later})}, 404, "job_not_found"},
		"issued in an hour":     {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": ada, "exp": later, "iat": later})}, 401, "unauthenticated"},
		"expired a second ago":  {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"sub": ada, "exp": time.Now().Add(-time.Second).Unix()})}, 401, "unauthenticated"},
		"account is missing":    {streamOf(mine), []string{sign(jwt.SigningMethodHS256, key, jwt.MapClaims{"exp": later})}, 401, "unauthenticated"},
		"no UUID":               {"/api/jobs/nonsense/progress", nil, 400, "invalid_job_id"},
		"no UUID for JSON":      {"/api/jobs/nonsense", nil, 400, "invalid_job_id"},
		"foreign origin":        {streamOf(mine), []string{"Origin: https://evil.example"}, 403, "origin_not_allowed"},
		"opaque origin":         {streamOf(mine), []string{"Origin: null"}, 403, "origin_not_allowed"},
		"unknown path":          {"/api/job", nil, 404, "not_found"},
		"unknown job":           {streamOf(nobodys), nil, 404, "job_not_found"},
		"unknown job, JSON":     {"/api/jobs/" + nobodys, nil, 404, "job_not_found"},
		"another's job":         {streamOf(theirs), nil, 404, "job_not_found"},
		"another's job, JSON":   {"/api/jobs/" + theirs, nil, 404, "job_not_found"},
		"permanent for a page":  {streamOf(theirs), []string{"Accept: text/event-stream"}, 404, "job_not_found"},
	} {
		cases.Go(func() { // at the same time, for some wait
			response, body := s.get(tt.path, tt.headers...)
			var problem struct {
				Type, Title, Code, Detail string
				Status                    int
			}
			if err := json.Unmarshal([]byte(body), &problem); err != nil {
				t.Errorf("%s: %s %q: %v", name, response.Status, body, err)
			}
			if response.StatusCode != tt.status || problem.Status != tt.status || problem.Code != tt.code || problem.Detail == "" ||
				response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %s %s, want %d %s", name, response.Status, body, tt.status, tt.code)
			}
			if challenge := response.Header.Get("WWW-Authenticate"); (tt.status == 401) != strings.HasPrefix(challenge, "Bearer ") {
				t.Errorf("%s: WWW-Authenticate %q", name, challenge)
			}
		})
	}
	var unknown, foreign *http.Response
	var unknownBody, foreignBody string
	cases.Go(func() { unknown, unknownBody = s.get(streamOf(nobodys)) })
	cases.Go(func() { foreign, foreignBody = s.get(streamOf(theirs)) })
	cases.Wait()
	unknown.Header.Del("Date")
	foreign.Header.Del("Date")
	if unknownBody != foreignBody || len(unknown.Header) != len(foreign.Header) {
		t.Errorf("another's job is sent from none: %s %s, %s %s", unknown.Header, unknownBody, foreign.Header, foreignBody)
	}

	for _, method := range []string{http.MethodPost, http.MethodHead, http.MethodDelete, http.MethodOptions} {
		r := s.request(streamOf(mine))
		r.Method = method
		if response, _ := s.do(r); response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET" {
			t.Errorf("%s: %s, Allow %q", method, response.Status, response.Header.Get("Allow"))
		}
	}
}

// Pages open the stream while the row is still being inserted, and EventSource never comes back from a 404.
func TestJobThatIsNotThereIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--backstop-interval", "1h")
	before := time.Now()
	wait := func(act func(id string)) *stream {
		id := uuid.NewString()
		opened := make(chan *stream, 1)
		go func() { opened <- s.open(streamOf(id)) }()
		s.eventually("waited for", func() bool { return s.metric("jobprogress_topics") != "0" })
		act(id)
		return <-opened
	}
	insert := func(id, account string) {
		s.exec(`insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'pending', '{"total": 3}')`, id, account)
	}
	st := wait(func(id string) { insert(id, ada) })
	st.until("pending")
	st.close()
	st = wait(func(id string) {
		insert(id, ben)
		s.exec(`update job set account_id = $2 where id = $1`, id, ada)
	})
	st.until("pending")
	if took := time.Since(before); took > 3*time.Second {
		t.Logf("it took %s", took)
	}

	// None, and somebody else's: both are waited for, and nothing tells them from each other.
	theirs := s.insert()
	s.exec(`update job set account_id = $2 where id = $1`, theirs, ben)
	var both sync.WaitGroup
	for name, id := range map[string]string{"none": uuid.NewString(), "another's": theirs} {
		both.Go(func() {
			before := time.Now()
			if response, _ := s.get(streamOf(id)); response.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", name, response.Status)
			}
			if took := time.Since(before); took < 3*time.Second {
				t.Errorf("%s is refused after %s", name, took)
			}
		})
	}
	both.Wait()
}

// However short the write timeout is: over HTTP/2, a deadline that passes resets the stream.
func TestGraceIsLongerThanTheWriteTimeout(t *testing.T) {
	t.Parallel()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := serveForTestWith(t, pgtest.New(t), &http.Client{Transport: &http.Transport{Protocols: protocols}}, "--write-timeout", "500ms")
	if response, _ := s.get(streamOf(uuid.NewString())); response.StatusCode != http.StatusNotFound {
		t.Errorf("answer %s", response.Status)
	}
}

func TestCredentialsInCookieAndOwnOrigin(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--cookie", "sid", "--jwt-issuer", "app")
	id := s.insert()
	claims := jwt.MapClaims{"sub": strings.ToUpper(ada), "exp": time.Now().Add(time.Hour).Unix(), "iss": "app"}
	cookie, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for want, headers := range map[int][]string{
		200: {"Authorization: ", "Cookie: a=b; sid=" + cookie, "Origin: " + s.url},
		401: {"Authorization: ", "Cookie: session=" + cookie},
	} {
		if response, body := s.get("/api/jobs/"+id, headers...); response.StatusCode != want {
			t.Errorf("%s %s, want %d", response.Status, body, want)
		}
	}
	if response, _ := s.get("/api/jobs/" + id); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("token of another issuer: %s", response.Status)
	}
}

func TestNoAuthenticationWhenAskedFor(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := serveForTest(t, url, "--jwt-secret", "", "--insecure-no-auth")
	st := s.open(streamOf(s.insert()), "Authorization: ")
	st.until("running")
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--max-streams-per-account", "2", "--max-streams", "3")
	id := s.insert()
	first := s.open(streamOf(id))
	s.open(streamOf(id))
	refused := func(want, code string, headers ...string) {
		t.Helper()
		response, body := s.get(streamOf(id), headers...)
		if response.Status != want || !strings.Contains(body, `"`+code+`"`) || response.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s, Retry-After %q, want %s", response.Status, body, response.Header.Get("Retry-After"), want)
		}
		response, body = s.get(streamOf(id), append(headers, "Accept: text/event-stream")...)
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(body, "retry: ") || !strings.HasSuffix(body, "\n: "+code+"\n") {
			t.Errorf("EventSource is sent %s %q", response.Status, body)
		}
	}
	refused("429 Too Many Requests", "too_many_streams")
	bens := "Authorization: Bearer " + token(t, ben, time.Hour)
	s.exec(`insert into job (id, account_id, type) values ($1, $2, 'matching')`, uuid.NewString(), ben)
	var benJob string
	if err := s.db.QueryRow(t.Context(), `select id::text from job where account_id = $1`, ben).Scan(&benJob); err != nil {
		t.Fatal(err)
	}
	s.open(streamOf(benJob), bens)
	refused("503 Service Unavailable", "over_capacity", bens)
	first.close()
	s.eventually("room again", func() bool { return s.metric("jobprogress_streams_open") == "2" })
	s.open(streamOf(id)).until("running")
}

func TestJSONState(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	response, body := s.get("/api/jobs/" + strings.ToUpper(id))
	var state map[string]any
	if err := json.Unmarshal([]byte(body), &state); err != nil || state["id"] != id || state["status"] != "running" || state["startedAt"] != nil {
		t.Errorf("%s %s: %v", response.Status, body, err)
	}
	etag := response.Header.Get("ETag")
	if response.Header.Get("Content-Type") != "application/json" || etag == "" || !strings.Contains(response.Header.Get("Cache-Control"), "private") {
		t.Errorf("headers %v", response.Header)
	}
	if response, body := s.get("/api/jobs/"+id, "If-None-Match: "+etag); response.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("unchanged: %s %q, want 304", response.Status, body)
	}
	s.progress(id, 1)
	if response, _ := s.get("/api/jobs/"+id, "If-None-Match: "+etag); response.StatusCode != http.StatusOK || response.Header.Get("ETag") == etag {
		t.Errorf("changed: %s, ETag %s", response.Status, response.Header.Get("ETag"))
	}
}

func TestAllowedOriginMayRead(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--allowed-origins", "https://app.example,http://localhost:3000")
	id := s.insert()
	for _, origin := range []string{"https://app.example", "http://localhost:3000"} {
		response, _ := s.get("/api/jobs/"+id, "Origin: "+origin)
		if response.StatusCode != http.StatusOK || response.Header.Get("Access-Control-Allow-Origin") != origin || response.Header.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("%s: %s %v", origin, response.Status, response.Header)
		}
	}
	preflight := s.request(streamOf(id), "Origin: https://app.example", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization,last-event-id")
	preflight.Method = http.MethodOptions
	if response, _ := s.do(preflight); response.StatusCode/100 != 2 || response.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("preflight: %s %v", response.Status, response.Header)
	}
	if response, _ := s.get("/api/jobs/"+id, "Origin: https://app.example.evil"); response.StatusCode != http.StatusForbidden {
		t.Errorf("foreign origin: %s", response.Status)
	}
}

func TestHTTP2WithAndWithoutTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	for name, args := range map[string][]string{"cleartext": nil, "TLS": {"--tls-cert", cert, "--tls-key", key}} {
		t.Run(name, func(t *testing.T) {
			protocols := new(http.Protocols)
			protocols.SetHTTP2(true)
			protocols.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			s := serveForTestWith(t, pgtest.New(t), &http.Client{Transport: transport}, args...)
			id := s.insert()
			var streams []*stream
			for range 100 {
				streams = append(streams, s.open(streamOf(id)))
			}
			if proto := streams[0].response.Proto; proto != "HTTP/2.0" {
				t.Errorf("spoken is %s", proto)
			}
			s.progress(id, 3)
			for _, st := range streams {
				st.until(doneEvent(3))
			}
			streams[0].close()
			s.eventually("closed at the server", func() bool { return s.metric("jobprogress_streams_open") == "99" })
		})
	}
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: keyBytes}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
