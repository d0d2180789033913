package auth

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// refusal says why a token is not valid, for the operator's log: what it says, and what it should, never the token itself.
func (j JWT) refusal(err error, token *jwt.Token, claims jwt.MapClaims) error {
	var details []string
	add := func(applies error, text string, args ...any) {
		if errors.Is(err, applies) {
			details = append(details, fmt.Sprintf(text, args...))
		}
	}
	if expires, _ := claims.GetExpirationTime(); expires != nil {
		add(jwt.ErrTokenExpired, "%s ago", time.Since(expires.Time).Round(time.Second))
	}
	if issued, _ := claims.GetIssuedAt(); issued != nil {
		add(jwt.ErrTokenUsedBeforeIssued, "iat is %s ahead", time.Until(issued.Time).Round(time.Second))
	}
	if begins, _ := claims.GetNotBefore(); begins != nil {
		add(jwt.ErrTokenNotValidYet, "nbf is %s ahead", time.Until(begins.Time).Round(time.Second))
	}
	add(jwt.ErrTokenInvalidAudience, "aud is %.100q, and not %q", claims["aud"], j.Audience)
	add(jwt.ErrTokenInvalidIssuer, "iss is %.100q, and not %q", claims["iss"], j.Issuer)
	if token != nil {
		key := "no kid"
		if kid, ok := token.Header["kid"]; ok {
			key = fmt.Sprintf("kid %.100q", kid)
		}
		add(jwt.ErrTokenSignatureInvalid, "alg %.20q, %s", token.Header["alg"], key)
		add(jwt.ErrTokenUnverifiable, "alg %.20q, %s", token.Header["alg"], key)
	}
	if details == nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return fmt.Errorf("%w: %w: %s", ErrInvalid, err, strings.Join(details, ", "))
}
