package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/web"
)

type pageCommand struct {
	Server string `env:"JOBPROGRESS_URL" default:"http://127.0.0.1:8080" help:"Where jobprogress serves."`
}

func (p *pageCommand) Run(s *settings, r *run) error {
	return servePage(r.ctx, s, p.Server, func(_ *settings, page string) error {
		fmt.Printf("The page: %s/\n", page)
		return nil
	})
}

// application is what stands in front of jobprogress: its page and its users.
type application struct {
	auth auth.JWT
}

// cookie is the session's, the one that jobprogress looks for.
const cookie = "session"

// endTimeout is how long streams may take to end.
const endTimeout = 3 * time.Second

// servePage serves until ctx ends, and calls ready with the page's address.
func servePage(ctx context.Context, s *settings, serverURL string, ready func(s *settings, page string) error) error {
	target, err := url.Parse(serverURL)
	if err != nil {
		return fmt.Errorf("parse server URL: %w", err)
	}
	app := &application{auth: s.jwt()}
	app.auth.Cookie = cookie

	mux := http.NewServeMux()
	mux.Handle("/api/", app.asSomebody(proxy(target)))
	mux.HandleFunc("GET /session", app.getSession)
	mux.HandleFunc("GET /sign-in/{account}", app.signIn)
	page, err := web.Page()
	if err != nil {
		return err
	}
	mux.Handle("/", page)

	listener, err := net.Listen("tcp", s.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		fmt.Printf("%s is taken: the page goes to another port\n", s.Addr)
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.Addr, err)
	}
	server := &http.Server{Handler: headers(mux), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(stopped)
		// The streams end with the server behind us, properly: a proxy before us, like Vite's, may not pass a cut on.
		ending, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		if server.Shutdown(ending) != nil {
			server.Close()
		}
	})
	if err := ready(s, "http://"+listener.Addr().String()); err != nil {
		return err
	}
	err = server.Serve(listener)
	if ctx.Err() != nil {
		<-stopped
		return nil
	}
	return err
}

// headers keep the page to itself: nothing is loaded from elsewhere.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// proxy puts jobprogress behind our origin, the way any reverse proxy does.
func proxy(target *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
			if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
				w.Header().Set("Content-Type", "text/event-stream") // any other status ends EventSource for good
				fmt.Fprint(w, "retry: 1000\n: server unavailable\n")
				return
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
}

// asSomebody takes requests without valid credentials for those of the first account:
// a page of one's own needs no users yet.
func (a *application) asSomebody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.auth.Authenticate(r); err != nil && r.Header.Get("Authorization") == "" {
			token, err := a.auth.Mint(accounts[0].ID, tokenTTL)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
		}
		next.ServeHTTP(w, r)
	})
}

// viewer is who is signed in; others become the first account.
func (a *application) viewer(w http.ResponseWriter, r *http.Request) (account, error) {
	if v, err := a.auth.Authenticate(r); err == nil {
		for _, known := range accounts {
			if known.ID == v.Account {
				return known, nil
			}
		}
	}
	return accounts[0], a.setCookie(w, accounts[0])
}

func (a *application) setCookie(w http.ResponseWriter, who account) error {
	token, err := a.auth.Mint(who.ID, tokenTTL)
	if err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(tokenTTL.Seconds())})
	return nil
}

func (a *application) signIn(w http.ResponseWriter, r *http.Request) {
	for _, known := range accounts {
		if known.ID == r.PathValue("account") {
			if err := a.setCookie(w, known); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
	}
	http.NotFound(w, r)
}

// getSession says who is signed in, and who else could be.
func (a *application) getSession(w http.ResponseWriter, r *http.Request) {
	who, err := a.viewer(w, r)
	answer(w, map[string]any{"account": who, "accounts": accounts}, err)
}

func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(value)
}
