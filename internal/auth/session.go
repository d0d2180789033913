package auth

import (
	"context"
	"fmt"
	"net/http"
)

// Session accepts what the application itself remembers of its sessions: a token of which Sessions knows the account.
type Session struct {
	Sessions Sessions
	Cookie   string // the name of the cookie that may hold the token
}

// Sessions looks sessions up.
type Sessions interface {
	// Account is the account of the session with this token, or "" if there is none.
	Account(ctx context.Context, token string) (string, error)
}

// Authenticate finds the token of a request and looks it up.
func (s Session) Authenticate(r *http.Request) (Viewer, error) {
	return authenticate(r, s.Cookie, s.verify)
}

func (s Session) verify(ctx context.Context, token string) (Viewer, error) {
	account, err := s.Sessions.Account(ctx, token)
	switch {
	case err != nil:
		return Viewer{}, fmt.Errorf("%w: %w", ErrNoSessions, err)
	case account == "":
		return Viewer{}, fmt.Errorf("%w: there is no such session", ErrInvalid)
	}
	return Viewer{Account: canonical(account), revocable: true}, nil
}
