package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// JWKS are the keys that a URL publishes (RFC 7517). They are kept, and fetched again regularly and when a token names
// one that is not among them. What was fetched serves for as long as the URL does not answer.
type JWKS struct {
	url    string
	log    *slog.Logger
	client *http.Client
	keys   atomic.Pointer[keyfunc.Keyfunc] // nil before the first fetch

	mu   sync.Mutex
	next *fetch        // that somebody waits for and that has not begun, or nil
	wake chan struct{} // holds a token while next is not nil
}

// fetch is one that somebody waits for.
type fetch struct {
	done chan struct{}
	err  error // may be looked at once done is closed
}

const (
	// fetchInterval is how long a key that is published no more is accepted, about.
	fetchInterval = 5 * time.Minute
	// fetchPause is the least time between fetches: a client that sends tokens with invented keys must not be able to
	// overwhelm the URL.
	fetchPause = time.Second
	// fetchTimeout bounds a fetch.
	fetchTimeout = 3 * time.Second
	// maxKeys bounds what is read, in bytes.
	maxKeys = 1 << 20
)

// NewJWKS makes the keys of a URL. Nothing is fetched before Run.
func NewJWKS(url string, log *slog.Logger) *JWKS {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	return &JWKS{url: url, log: log, client: &http.Client{Transport: transport, Timeout: fetchTimeout}, wake: make(chan struct{}, 1)}
}

// Run fetches the keys at once, then regularly and when they are asked for, until ctx ends. It returns nil.
func (j *JWKS) Run(ctx context.Context) error {
	defer j.client.CloseIdleConnections()
	failed := false
	for {
		j.mu.Lock()
		f := j.next
		j.next = nil
		j.mu.Unlock()
		err := j.fetch(ctx)
		if f != nil {
			f.err = err
			close(f.done)
		}
		switch {
		case err != nil && !failed && ctx.Err() == nil:
			j.log.Warn("keys not fetched", "error", err)
		case err == nil && failed:
			j.log.Info("keys fetched again")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fetchPause):
		}
		rest := fetchInterval
		if failed {
			rest = fetchPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-j.wake:
		case <-time.After(rest):
		}
	}
}

// algorithms are all that public keys are for; which of them fits the key is checked with the signature.
func (j *JWKS) algorithms() []string { return []string{"RS256", "ES256", "EdDSA"} }

func (*JWKS) change() bool { return true }

func (j *JWKS) key(ctx context.Context, token *jwt.Token) (any, error) {
	key, err := j.find(ctx, token)
	if !errors.Is(err, jwkset.ErrKeyNotFound) && !errors.Is(err, ErrNoKeys) {
		return key, err
	}
	// A fetch that begins now reports whether there is such a key, to all who ask.
	f := j.await()
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoKeys, ctx.Err())
	case <-time.After(2 * (fetchPause + fetchTimeout)):
		return nil, fmt.Errorf("%w: it takes too long", ErrNoKeys)
	}
	if f.err != nil {
		return nil, f.err
	}
	return j.find(ctx, token)
}

// await returns a fetch that begins after this call.
func (j *JWKS) await() *fetch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next == nil {
		j.next = &fetch{done: make(chan struct{})}
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	return j.next
}

func (j *JWKS) find(ctx context.Context, token *jwt.Token) (any, error) {
	keys := j.keys.Load()
	if keys == nil {
		return nil, fmt.Errorf("%w: they were never fetched", ErrNoKeys)
	}
	return (*keys).KeyfuncCtx(ctx)(token)
}

// fetch replaces the keys by those of the URL. Its errors wrap ErrNoKeys.
func (j *JWKS) fetch(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	response, err := j.client.Do(r)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may hold a secret
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: the answer is %s", ErrNoKeys, response.Status)
	}
	var set jwkset.JWKSMarshal
	if err := json.NewDecoder(io.LimitReader(response.Body, maxKeys)).Decode(&set); err != nil {
		return fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	storage, usable := jwkset.NewMemoryStorage(), 0
	for _, one := range set.Keys {
		key, err := jwkset.NewJWKFromMarshal(one, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil || one.USE == jwkset.UseEnc {
			continue // of a kind that we don't know, or for something else: the others are good
		}
		if _, err := newPublicKey(key.Key()); err != nil {
			continue
		}
		if err := storage.KeyWrite(ctx, key); err != nil {
			return fmt.Errorf("%w: %w", ErrNoKeys, err)
		}
		usable++
	}
	if usable == 0 {
		return fmt.Errorf("%w: there is none of RS256, ES256 or EdDSA in the answer", ErrNoKeys)
	}
	keys, err := keyfunc.New(keyfunc.Options{Storage: storage})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	j.keys.Store(&keys)
	return nil
}
