package auth

import (
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// JWT accepts JSON Web Tokens (RFC 7519) signed with HS256. Tokens need exp.
type JWT struct {
	Secret   []byte // of 32 bytes or more (RFC 7518, section 3.2)
	Cookie   string // the name of the cookie that may hold the token
	Claim    string // the claim that holds the account, sub
	Issuer   string // iss that tokens must have; "" is any
	Audience string // aud that tokens must have; "" is any
}

// Authenticate finds and verifies the token of a request.
func (j JWT) Authenticate(r *http.Request) (Viewer, error) {
	token, err := credentials(r, j.Cookie)
	if err != nil {
		return Viewer{}, err
	}
	return j.verify(token)
}

func (j JWT) verify(token string) (Viewer, error) {
	options := []jwt.ParserOption{jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired()}
	if j.Issuer != "" {
		options = append(options, jwt.WithIssuer(j.Issuer))
	}
	if j.Audience != "" {
		options = append(options, jwt.WithAudience(j.Audience))
	}
	claims := jwt.MapClaims{}
	_, err := jwt.NewParser(options...).ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return j.Secret, nil })
	if err != nil {
		return Viewer{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	account, ok := claims[j.Claim].(string)
	if !ok || account == "" {
		return Viewer{}, fmt.Errorf("%w: claim %q is not a string", ErrInvalid, j.Claim)
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return Viewer{}, fmt.Errorf("%w: exp is not a time", ErrInvalid)
	}
	return Viewer{Account: canonical(account), Expires: expires.Time}, nil
}

// Mint makes a token for an account that is valid for ttl from now.
func (j JWT) Mint(account string, ttl time.Duration) (string, error) {
	now := time.Now()
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(ttl).Unix(), j.Claim: account}
	if j.Issuer != "" {
		claims["iss"] = j.Issuer
	}
	if j.Audience != "" {
		claims["aud"] = j.Audience
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(j.Secret)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
