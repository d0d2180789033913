package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// publisher serves a set of keys, or fails.
type publisher struct {
	*httptest.Server
	requests atomic.Int32

	mu   sync.Mutex
	down bool
	keys []any
}

func publish(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.requests.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": p.keys})
	}))
	t.Cleanup(p.Close)
	return p
}

// has makes the publisher have these keys, and those that are nobody's business.
func (p *publisher) has(t *testing.T, keys map[string]crypto.Signer) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
	p.keys = []any{map[string]string{"kty": "OKP", "crv": "X448", "x": "AA", "kid": "strange"}, map[string]string{"kty": "RSA"}}
	for id, key := range keys {
		one, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err != nil {
			t.Fatal(err)
		}
		p.keys = append(p.keys, one.Marshal())
	}
}

func (p *publisher) fails() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
}

// running are the keys of the publisher, kept for as long as the test.
func (p *publisher) running(t *testing.T) JWT {
	t.Helper()
	keys := NewJWKS(p.URL, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		keys.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return JWT{Keys: keys, Claim: "sub"}
}

func TestKeysOfAURL(t *testing.T) {
	all := pairs(t)
	p := publish(t)
	p.has(t, map[string]crypto.Signer{"r": all["RS256"].private, "e": all["ES256"].private, "d": all["EdDSA"].private})
	tokens := p.running(t)
	for id, name := range map[string]string{"r": "RS256", "e": "ES256", "d": "EdDSA"} {
		for _, kid := range []string{id, ""} {
			if v, err := tokens.Authenticate(request("Authorization", "Bearer "+sign(t, all[name].method, all[name].private, kid))); err != nil || v.Account != account {
				t.Errorf("%s, kid %q: %+v, %v", name, kid, v, err)
			}
		}
	}
	refuses(t, tokens, "another's key of that id", sign(t, jwt.SigningMethodRS256, pairs(t)["RS256"].private, "r"))
	refuses(t, tokens, "another's key without an id", sign(t, jwt.SigningMethodRS256, pairs(t)["RS256"].private, ""))
	refuses(t, tokens, "a key of another kind", sign(t, jwt.SigningMethodES256, all["ES256"].private, "r"))
	refuses(t, tokens, "a secret", sign(t, jwt.SigningMethodHS256, publicPEM(t, all["RS256"].private), "r"))
	if n := p.requests.Load(); n > 2 { // at the start, and for who came earlier
		t.Errorf("%d fetches", n)
	}
}

func TestKeyIsRotated(t *testing.T) {
	old, renewed := pairs(t)["ES256"], pairs(t)["ES256"]
	p := publish(t)
	p.has(t, map[string]crypto.Signer{"old": old.private})
	tokens := p.running(t)
	ask := func(which pair, id string) error {
		_, err := tokens.Authenticate(request("Authorization", "Bearer "+sign(t, which.method, which.private, id)))
		return err
	}
	if err := ask(old, "old"); err != nil {
		t.Fatal(err)
	}
	p.has(t, map[string]crypto.Signer{"new": renewed.private})
	if err := ask(renewed, "new"); err != nil {
		t.Errorf("the renewed key: %v", err)
	}
	before := p.requests.Load()
	var all sync.WaitGroup
	for range 100 { // and not one after another
		all.Go(func() {
			if err := ask(old, "old"); !errors.Is(err, ErrInvalid) {
				t.Errorf("the old key: %v", err)
			}
		})
	}
	all.Wait()
	if n := p.requests.Load() - before; n > 2 {
		t.Errorf("an unknown key causes %d fetches", n)
	}
}

func TestServerOfTheKeysIsDown(t *testing.T) {
	key := pairs(t)["EdDSA"]
	p := publish(t)
	p.fails()
	tokens := p.running(t)
	ask := func(id string) error {
		_, err := tokens.Authenticate(request("Authorization", "Bearer "+sign(t, key.method, key.private, id)))
		return err
	}
	if err := ask("d"); !errors.Is(err, ErrNoKeys) {
		t.Errorf("down at the start: %v", err)
	}
	p.has(t, map[string]crypto.Signer{"d": key.private})
	if err := ask("d"); err != nil {
		t.Errorf("up: %v", err)
	}
	for name, breaks := range map[string]func(){"down": p.fails, "without keys": func() { p.has(t, nil) }} {
		breaks()
		if err := ask("other"); !errors.Is(err, ErrNoKeys) {
			t.Errorf("%s later, an unknown key: %v", name, err)
		}
		if err := ask("d"); err != nil {
			t.Errorf("%s later: %v", name, err)
		}
	}
}

func TestAskingForKeysEndsWithTheRequest(t *testing.T) {
	hangs := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hangs }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hangs) })
	tokens := (&publisher{Server: server}).running(t)
	key := pairs(t)["EdDSA"]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := tokens.Authenticate(request("Authorization", "Bearer "+sign(t, key.method, key.private, "d")).WithContext(ctx))
	if !errors.Is(err, ErrNoKeys) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
