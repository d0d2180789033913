package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Application asks the application whose request it is, for sessions that only the application can read.
type Application struct {
	url    string
	client *http.Client

	current singleflight.Group // the questions under way

	mu      sync.Mutex
	answers map[question]answer
	swept   time.Time
}

// question is the digest of what is asked: there is no need to keep credentials.
type question [sha256.Size]byte

// answer is what the application said: a viewer, or an error that wraps ErrInvalid.
type answer struct {
	viewer Viewer
	err    error
	until  time.Time // it counts
}

const (
	// answerLife is how long an answer counts, and refusalLife a refusal: a
	// visitor who signs in may have the same cookie as before.
	answerLife  = 10 * time.Second
	refusalLife = time.Second
	// askTimeout bounds a question.
	askTimeout = 5 * time.Second
	// maxConns is how many questions the application gets at a time.
	maxConns = 64
	// farAway is the end of the year 9999, in seconds since 1970. Later is never.
	farAway = 253402300799
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

// asked are the headers that are passed on, and all that the application gets.
var asked = []string{"Authorization", "Cookie", "Origin"}

// NewApplication asks at the URL.
func NewApplication(url string) *Application {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// All streams are asked about again and again, and all at once after a restart.
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = maxConns, maxConns
	return &Application{
		url: url,
		client: &http.Client{
			Transport: transport,
			Timeout:   askTimeout,
			// Where a redirect leads to, to a login for example, nobody says who it is.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		answers: make(map[question]answer),
	}
}

// Close ends the connections that are kept.
func (a *Application) Close() { a.client.CloseIdleConnections() }

// Authenticate passes the credentials of a request on. Those who send the same at the same time share a question.
func (a *Application) Authenticate(r *http.Request) (Viewer, error) {
	if r.Header.Get("Authorization") == "" && r.Header.Get("Cookie") == "" {
		return Viewer{}, ErrMissing
	}
	header := http.Header{"Accept": {"application/json"}}
	for _, name := range asked {
		for _, value := range r.Header.Values(name) {
			header.Add(name, value)
		}
	}
	v, err := a.askOnce(r.Context(), header)
	if err == nil {
		v.Recheck = func(ctx context.Context) (Viewer, error) { return a.askOnce(ctx, header) }
	}
	return v, err
}

// askOnce asks with these headers, unless the answer is known.
func (a *Application) askOnce(ctx context.Context, header http.Header) (Viewer, error) {
	digest := sha256.New()
	for _, name := range asked {
		for _, value := range header.Values(name) {
			fmt.Fprintf(digest, "%s: %q\n", name, value)
		}
	}
	q := question(digest.Sum(nil))
	if known, ok := a.known(q); ok {
		return known.viewer, known.err
	}
	found := a.current.DoChan(string(q[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout) // others wait for it, too
		defer cancel()
		viewer, err := a.ask(ctx, header)
		if err == nil || errors.Is(err, ErrInvalid) {
			a.remember(q, viewer, err)
		}
		return viewer, err
	})
	select {
	case result := <-found:
		return result.Val.(Viewer), result.Err
	case <-ctx.Done():
		return Viewer{}, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
	}
}

func (a *Application) known(q question) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.answers[q]
	return known, ok && time.Now().Before(known.until)
}

func (a *Application) remember(q question, viewer Viewer, err error) {
	now := time.Now()
	until := now.Add(answerLife)
	if err != nil {
		until = now.Add(refusalLife)
	}
	if !viewer.Expires.IsZero() && viewer.Expires.Before(until) {
		until = viewer.Expires
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.swept) >= answerLife {
		for q, known := range a.answers {
			if now.After(known.until) {
				delete(a.answers, q)
			}
		}
		a.swept = now
	}
	a.answers[q] = answer{viewer, err, until}
}

// ask asks. Its errors wrap ErrInvalid or ErrNoAnswer.
func (a *Application) ask(ctx context.Context, header http.Header) (Viewer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return Viewer{}, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	r.Header = header.Clone()
	response, err := a.client.Do(r)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may hold a secret
	}
	if err != nil {
		return Viewer{}, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden: // whatever the body says
		return Viewer{}, fmt.Errorf("%w: the application answers %s", ErrInvalid, response.Status)
	default:
		return Viewer{}, fmt.Errorf("%w: it answers %s", ErrNoAnswer, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return Viewer{}, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return parseAnswer(body)
}

// parseAnswer reads {"account": "…"}, a string or an integer, and "expires", RFC 3339 or seconds since 1970.
func parseAnswer(body []byte) (Viewer, error) {
	var said struct {
		Account any `json:"account"`
		Expires any `json:"expires"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&said); err != nil {
		return Viewer{}, fmt.Errorf("%w: it answers 200 and no JSON: %w", ErrNoAnswer, err)
	}
	v := Viewer{Account: accountOf(said.Account)}
	if v.Account == "" {
		return Viewer{}, fmt.Errorf(`%w: it answers 200 without an "account"`, ErrNoAnswer)
	}
	switch expires := said.Expires.(type) {
	case nil:
		return v, nil
	case json.Number:
		if seconds, err := expires.Float64(); err == nil {
			v.Expires = time.UnixMilli(int64(min(seconds, farAway) * 1000))
		}
	case string:
		v.Expires, _ = time.Parse(time.RFC3339, expires)
	}
	switch {
	case v.Expires.IsZero():
		return Viewer{}, fmt.Errorf(`%w: its "expires" is neither RFC 3339 nor seconds since 1970`, ErrNoAnswer)
	case !time.Now().Before(v.Expires):
		return Viewer{}, fmt.Errorf("%w: the application says that they expired", ErrInvalid)
	}
	return v, nil
}
