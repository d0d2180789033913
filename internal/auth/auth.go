// Package auth tells which account sends a request. It stands before everything else that a request meets, and knows
// nobody.
package auth

import (
	"errors"
	"fmt"
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
)

// Viewer is who sends a request.
type Viewer struct {
	Account string    // as text; a UUID in its canonical form
	Expires time.Time // when the credentials end; zero is never
	Anyone  bool      // authentication is off: sees every job

	Revocable bool // the credentials may end before Expires
}

// Owns reports whether the viewer may see the jobs of an account. A job without an owner is nobody's.
func (v Viewer) Owns(account string) bool {
	return v.Anyone || account != "" && v.Account == account
}

// None lets everybody see everything.
type None struct{}

// Authenticate never fails.
func (None) Authenticate(*http.Request) (Viewer, error) { return Viewer{Anyone: true}, nil }

// credentials finds the token of a request: a bearer token, else the cookie of that name. It is never in the URL,
// which ends up in logs.
func credentials(r *http.Request, cookie string) (string, error) {
	// Another scheme is somebody else's, a proxy's that asks for a password for example.
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		if token = strings.TrimSpace(token); token == "" {
			return "", fmt.Errorf("%w: the bearer token is empty", ErrInvalid)
		}
		return token, nil
	}
	if c, err := r.Cookie(cookie); err == nil && c.Value != "" {
		return c.Value, nil
	}
	return "", ErrMissing
}

// canonical gives a UUID the form in which the database writes it. Other accounts stay as they are.
func canonical(account string) string {
	if id, err := uuid.Parse(account); err == nil && len(account) == 36 {
		return id.String()
	}
	return account
}
