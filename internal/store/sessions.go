package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/singleflight"
)

// Sessions looks the application's sessions up, with a query of the operator's.
type Sessions struct {
	store   *Store
	query   string
	current *singleflight.Group // the look-ups under way, by token
}

// sessionTimeout bounds one look at a session.
const sessionTimeout = 5 * time.Second

// CheckSessionQuery reports what is wrong with a query for sessions, as far as that can be seen without a database.
func CheckSessionQuery(query string) error {
	if !regexp.MustCompile(`\$1\b`).MatchString(query) {
		return errors.New("does not use $1, the token")
	}
	return nil
}

// Sessions are found by a query that selects the account of the session with token $1, a text.
func (s *Store) Sessions(query string) Sessions {
	query = strings.TrimRight(query, "; \t\r\n")
	// As text whatever its type, on a line of its own: the query may end in a comment.
	return Sessions{s, "select account::text from (" + query + "\n) as session (account)", new(singleflight.Group)}
}

// Account is the account of the session with this token, or "" if there is none. Those who ask for the same at the same
// time share one look-up.
func (s Sessions) Account(ctx context.Context, token string) (string, error) {
	found := s.current.DoChan(token, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sessionTimeout) // others wait for it, too
		defer cancel()
		return s.lookUp(ctx, token)
	})
	select {
	case result := <-found:
		return result.Val.(string), result.Err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (s Sessions) lookUp(ctx context.Context, token string) (string, error) {
	var account *string
	err := s.store.pool.QueryRow(ctx, s.query, token).Scan(&account)
	pg, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case pg != nil && strings.HasPrefix(pg.Code, "22"): // data exception: the token is no UUID, no number, no base64 ...
		return "", nil
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("run JOBPROGRESS_SESSION_QUERY: %w", explainSession(err))
	case account == nil:
		return "", nil
	}
	return *account, nil
}

// Check runs the query once. It waits for the database, and returns nil, the error of a query that will never work, or
// that of ctx.
func (s Sessions) Check(ctx context.Context) error {
	for {
		_, err := s.Account(ctx, rand.Text())
		if pg, ok := errors.AsType[*pgconn.PgError](err); err == nil || ok && strings.HasPrefix(pg.Code, "42") || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sessionTimeout):
		}
	}
}

// explainSession says what to do about a query that may not be run.
func explainSession(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42501" {
		return fmt.Errorf("%w. Grant the service's role usage on the schema and select on the table of the sessions", err)
	}
	return err
}
