package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobprogress/internal/pgtest"
)

// application is one whose sessions nobody else can read.
type application struct {
	url   string
	asked atomic.Int32

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
}

func newApplication(t *testing.T) *application {
	a := new(application)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.answer(w, r)
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *application) answers(status int, body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/login")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func TestTheApplicationIsAsked(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	var passed http.Header
	app.answer = func(w http.ResponseWriter, r *http.Request) {
		passed = r.Header
		fmt.Fprintf(w, `{"account":"%s","name":"Ada"}`, strings.ToUpper(ada))
	}
	s := serveForTest(t, pgtest.New(t), noSecret, "--auth-url", app.url+"/whoami", "--backstop-interval", "1s")
	id := s.insert()
	origin := "Origin: " + s.url
	st := s.open(streamOf(id), "Cookie: sid=encrypted; theme=dark", "Authorization: Custom x", origin, "X-Other: secret")
	st.until("running")
	if passed.Get("Cookie") != "sid=encrypted; theme=dark" || passed.Get("Authorization") != "Custom x" || passed.Get("Origin") != s.url || passed.Get("X-Other") != "" {
		t.Errorf("the application is sent %v", passed)
	}
	for range 3 {
		s.get("/api/jobs/"+id, "Cookie: sid=encrypted; theme=dark", "Authorization: Custom x", origin)
	}
	if n := app.asked.Load(); n != 1 {
		t.Errorf("it is asked %d times in ten seconds", n)
	}
	if response, _ := s.get("/api/jobs/"+id, "Authorization: "); response.StatusCode != http.StatusUnauthorized || app.asked.Load() != 1 {
		t.Errorf("without credentials: %s, asked %d times", response.Status, app.asked.Load())
	}

	app.answers(http.StatusUnauthorized, "")
	s.progress(id, 4)
	st.until(doneEvent(4))
	st.ends() // when it is asked about again
	s.eventually("counted", func() bool { return s.metric(`jobprogress_streams_ended_total{reason="revoked"}`) == "1" })
}

func TestAnswersOfTheApplication(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	s := serveForTest(t, pgtest.New(t), noSecret, "--auth-url", app.url)
	id := s.insert()
	later, earlier := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	number := 0
	for name, tt := range map[string]struct {
		status int
		body   string
		want   int
	}{
		"account":                {200, `{"account":"` + ada + `"}`, 200},
		"until a moment":         {200, `{"account":"` + ada + `","expires":"` + later.Format(time.RFC3339) + `"}`, 200},
		"until a second of 1970": {200, fmt.Sprintf(`{"account":"%s","expires":%d}`, ada, later.Unix()), 200},
		"expired":                {200, `{"account":"` + ada + `","expires":"` + earlier.Format(time.RFC3339) + `"}`, 401},
		"never expires":          {200, `{"account":"` + ada + `","expires":9223372036854775807}`, 200},
		"expires in a riddle":    {200, `{"account":"` + ada + `","expires":"soon"}`, 503},
		"another":                {200, `{"account":7}`, 404},
		"nobody":                 {200, `{"account":null}`, 503},
		"no account":             {200, `{}`, 503},
		"a page":                 {200, `<!doctype html>`, 503},
		"unauthorized":           {401, ``, 401},
		"forbidden":              {403, ``, 401},
		"a login":                {302, ``, 503},
		"not there":              {404, ``, 503},
		"broken":                 {500, ``, 503},
	} {
		number++
		app.answers(tt.status, tt.body)
		if response, body := s.get("/api/jobs/"+id, fmt.Sprintf("Cookie: sid=%d", number)); response.StatusCode != tt.want {
			t.Errorf("%s: %s %s, want %d", name, response.Status, body, tt.want)
		}
	}
	// Who signs in may have the same cookie as before.
	app.answers(401, "")
	if response, _ := s.get("/api/jobs/"+id, "Cookie: sid=anonymous"); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("before the sign-in: %s", response.Status)
	}
	app.answers(200, `{"account":"`+ada+`"}`)
	time.Sleep(time.Second)
	if response, _ := s.get("/api/jobs/"+id, "Cookie: sid=anonymous"); response.StatusCode != http.StatusOK {
		t.Errorf("a second after the sign-in: %s", response.Status)
	}

	app.answers(500, "")
	response, body := s.get(streamOf(id), "Cookie: sid=new", "Accept: text/event-stream")
	if response.StatusCode != http.StatusOK || !strings.Contains(body, ": auth_unavailable\n") {
		t.Errorf("EventSource is sent %s %q", response.Status, body)
	}
}
