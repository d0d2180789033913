package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/jub0bs/cors"
)

// CheckOrigin reports what is wrong with an origin of the allow-list.
func CheckOrigin(origin string) error {
	if strings.Contains(origin, "*") {
		return fmt.Errorf("%q is not exact: name one origin like https://app.example.com", origin)
	}
	if _, err := newCORS([]string{origin}); err != nil {
		return fmt.Errorf("%q is not an origin like https://app.example.com: %w", origin, err)
	}
	return nil
}

func newCORS(origins []string) (*cors.Middleware, error) {
	return cors.NewMiddleware(cors.Config{
		Origins:         origins,
		Credentialed:    true,
		Methods:         []string{http.MethodGet, http.MethodHead},
		RequestHeaders:  []string{"Authorization", "Cache-Control", "If-None-Match", "Last-Event-ID"},
		ResponseHeaders: []string{"ETag", "Retry-After"},
		ExtraConfig:     cors.ExtraConfig{DangerouslyTolerateInsecureOrigins: true}, // http is the operator's to judge
	})
}

// checkOrigin refuses pages of foreign origins, and lets those of the allow-list read with credentials (CORS).
func (a *API) checkOrigin(next http.Handler) (http.Handler, error) {
	if len(a.config.AllowedOrigins) > 0 {
		c, err := newCORS(a.config.AllowedOrigins)
		if err != nil {
			return nil, fmt.Errorf("allowed origins: %w", err)
		}
		next = c.Wrap(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" || sameOrigin(origin, r) || slices.Contains(a.config.AllowedOrigins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		a.refuse(w, r, errOriginNotAllowed)
	}), nil
}

// sameOrigin compares hosts only: behind a proxy that ends TLS the scheme is not to be seen.
func sameOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == r.Host
}
