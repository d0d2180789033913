package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// JWT accepts JSON Web Tokens (RFC 7519). Tokens need exp.
type JWT struct {
	Keys     Keys
	Cookie   string // the name of the cookie that may hold the token
	Claim    string // the claim that holds the account, sub
	Issuer   string // iss that tokens must have; "" is any
	Audience string // aud that tokens must have; "" is any
}

// Keys are what tokens are verified with.
type Keys interface {
	// algorithms are the only ones that these keys are for: a token must not choose how it is verified.
	algorithms() []string
	// change reports whether what is a key now may be none later.
	change() bool
	// key finds the key of a token. Its error wraps ErrNoKeys if it can't be found out now whether there is one.
	key(ctx context.Context, token *jwt.Token) (any, error)
}

// Authenticate finds and verifies the token of a request.
func (j JWT) Authenticate(r *http.Request) (Viewer, error) {
	return authenticate(r, j.Cookie, j.verify)
}

// leeway is how far ahead iat and nbf may be: the clock of who issues tokens is not ours.
const leeway = time.Minute

func (j JWT) verify(ctx context.Context, token string) (Viewer, error) {
	options := []jwt.ParserOption{jwt.WithValidMethods(j.Keys.algorithms()), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithJSONNumber()}
	if j.Issuer != "" {
		options = append(options, jwt.WithIssuer(j.Issuer))
	}
	if j.Audience != "" {
		options = append(options, jwt.WithAudience(j.Audience))
	}
	claims := jwt.MapClaims{}
	parsed, err := jwt.NewParser(options...).ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) { return j.Keys.key(ctx, t) })
	switch {
	case errors.Is(err, ErrNoKeys):
		return Viewer{}, err
	case err != nil:
		return Viewer{}, j.refusal(err, parsed, claims)
	}
	account := accountOf(claims[j.Claim])
	if account == "" {
		return Viewer{}, fmt.Errorf("%w: claim %q is neither a string nor an integer", ErrInvalid, j.Claim)
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return Viewer{}, fmt.Errorf("%w: exp is no time", ErrInvalid)
	}
	if !time.Now().Before(expires.Time) { // the leeway is not for exp
		return Viewer{}, j.refusal(jwt.ErrTokenExpired, parsed, claims)
	}
	return Viewer{Account: account, Expires: expires.Time, revocable: j.Keys.change()}, nil
}

// Mint makes a token for an account that is valid for ttl from now. It takes a Secret.
func (j JWT) Mint(account string, ttl time.Duration) (string, error) {
	secret, ok := j.Keys.(Secret)
	if !ok {
		return "", errors.New("sign token: only a secret signs")
	}
	now := time.Now()
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(ttl).Unix(), j.Claim: account}
	if j.Issuer != "" {
		claims["iss"] = j.Issuer
	}
	if j.Audience != "" {
		claims["aud"] = j.Audience
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
