// Package auth says which account sends a request. It stands before everything else that a request meets, and knows
// nobody.
package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// What authentication fails with. Errors wrap one of them.
var (
	ErrMissing    = errors.New("no credentials")
	ErrInvalid    = errors.New("credentials are not valid")
	ErrNoKeys     = errors.New("keys can't be fetched now") // the credentials may be valid
	ErrNoSessions = errors.New("sessions can't be read now")
	ErrNoAnswer   = errors.New("the application can't be asked now")
)

// Viewer is who sends a request.
type Viewer struct {
	Account string    // as text; a UUID in its canonical form
	Expires time.Time // when the credentials end; zero is never
	Anyone  bool      // authentication is off: sees every job

	// Recheck finds out who the credentials are now. It is nil if they can't end before Expires.
	Recheck func(context.Context) (Viewer, error)

	revocable bool // they can
}

// Owns reports whether the viewer may see the jobs of an account. A job without an owner is nobody's.
func (v Viewer) Owns(account string) bool {
	return v.Anyone || account != "" && v.Account == account
}

// None lets everybody see everything.
type None struct{}

// Authenticate never fails.
func (None) Authenticate(*http.Request) (Viewer, error) { return Viewer{Anyone: true}, nil }

// maxTokens is how many tokens of a request are tried. Browsers send several cookies of a name, of several paths and
// domains.
const maxTokens = 16

// credentials finds the tokens of a request: bearer tokens, or if there are none the cookies of that name. They are never
// in the URL, which ends up in logs.
func credentials(r *http.Request, cookie string) (tokens []string, err error) {
	for _, value := range r.Header.Values("Authorization") {
		// Another scheme is somebody else's, a proxy's that asks for a password for example.
		scheme, token, _ := strings.Cut(value, " ")
		if token = strings.TrimSpace(token); strings.EqualFold(scheme, "Bearer") && token != "" {
			tokens = append(tokens, token)
		}
	}
	if tokens == nil {
		for _, c := range r.CookiesNamed(cookie) {
			if c.Value != "" {
				tokens = append(tokens, c.Value)
			}
		}
	}
	switch {
	case tokens == nil && r.Header.Get("Authorization") != "":
		return nil, fmt.Errorf("%w: Authorization is not Bearer and a token", ErrMissing)
	case tokens == nil:
		return nil, ErrMissing
	}
	return tokens[:min(len(tokens), maxTokens)], nil
}

// verifier finds the viewer of a token.
type verifier func(ctx context.Context, token string) (Viewer, error)

// authenticate finds the tokens of a request, and the viewer of the first of them that is valid. Without one it returns the
// error of a token that may be valid, else that of the last.
func authenticate(r *http.Request, cookie string, verify verifier) (Viewer, error) {
	tokens, err := credentials(r, cookie)
	if err != nil {
		return Viewer{}, err
	}
	v, err := verifyAny(r.Context(), tokens, verify)
	if v.revocable {
		kept := make([]string, len(tokens)) // and not the headers that they are a part of
		for i, token := range tokens {
			kept[i] = strings.Clone(token)
		}
		v.Recheck = func(ctx context.Context) (Viewer, error) { return verifyAny(ctx, kept, verify) }
	}
	return v, err
}

func verifyAny(ctx context.Context, tokens []string, verify verifier) (Viewer, error) {
	var err, undecided error
	for _, token := range tokens {
		var v Viewer
		if v, err = verify(ctx, token); err == nil {
			return v, nil
		}
		if !errors.Is(err, ErrInvalid) {
			undecided = err
		}
	}
	if undecided != nil {
		err = undecided
	}
	return Viewer{}, err
}

// accountOf is the account that a value of JSON names, a string or an integer, or "" if it names none.
func accountOf(value any) string {
	switch v := value.(type) {
	case string:
		if !strings.Contains(v, "\x00") { // which no database has
			return canonical(v)
		}
	case json.Number:
		if _, ok := new(big.Int).SetString(v.String(), 10); ok {
			return v.String()
		}
	}
	return ""
}

// canonical gives a UUID the form in which the database writes it. Other accounts stay as they are.
func canonical(account string) string {
	if id, err := uuid.Parse(account); err == nil && len(account) == 36 {
		return id.String()
	}
	return account
}
