package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"jobprogress/internal/httpapi"
	"jobprogress/internal/store"
)

// serveCommand serves the streams.
type serveCommand struct {
	database
	ListenDatabaseURL string `env:"LISTEN_DATABASE_URL" secret:"" placeholder:"URL" help:"Where to listen and read: direct sessions to the primary, or a pooler in session mode, if DATABASE_URL goes through one in transaction mode. Default: DATABASE_URL."`

	Addr      string `env:"JOBPROGRESS_ADDR" default:"127.0.0.1:8080" help:"Address to serve on; port 0 picks one."`
	AdminAddr string `env:"JOBPROGRESS_ADMIN_ADDR" default:"127.0.0.1:8081" help:"Address of /metrics and /debug/pprof/; port 0 picks one."`
	TLSCert   string `env:"JOBPROGRESS_TLS_CERT" placeholder:"FILE" help:"PEM certificate chain: serve TLS with HTTP/2."`
	TLSKey    string `env:"JOBPROGRESS_TLS_KEY" placeholder:"FILE" help:"PEM key of the certificate."`

	tokens
	JWTPreviousSecret string   `env:"JOBPROGRESS_JWT_PREVIOUS_SECRET" secret:"" placeholder:"SECRET" help:"The secret before: its tokens count, too, while it is being replaced."`
	JWTPublicKey      string   `env:"JOBPROGRESS_JWT_PUBLIC_KEY" placeholder:"FILE" help:"PEM public key of RS256, ES256 (P-256) or EdDSA (Ed25519) tokens."`
	JWKSURL           string   `env:"JOBPROGRESS_JWKS_URL" name:"jwks-url" placeholder:"URL" help:"Where the public keys of the tokens are published, as a JSON Web Key Set."`
	AuthURL           string   `env:"JOBPROGRESS_AUTH_URL" name:"auth-url" placeholder:"URL" help:"Instead of tokens: the application, asked with the Cookie, Authorization and Origin of each viewer, answers 200 and {\"account\":\"...\"}, or 401."`
	SessionQuery      string   `env:"JOBPROGRESS_SESSION_QUERY" placeholder:"SQL" help:"Instead of tokens: selects the account of the session with token $$1, in the database of DATABASE_URL."`
	Cookie            string   `env:"JOBPROGRESS_COOKIE" default:"session" help:"Cookie that holds the token when there is no Authorization header."`
	InsecureNoAuth    bool     `env:"JOBPROGRESS_INSECURE_NO_AUTH" help:"No authentication: everybody sees every job. Loopback addresses only."`
	AllowedOrigins    []string `env:"JOBPROGRESS_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Foreign origins that may read, exact, comma-separated."`

	PingInterval     time.Duration `env:"JOBPROGRESS_PING_INTERVAL" default:"30s" help:"No stream is silent for longer: pings leave a little earlier."`
	BackstopInterval time.Duration `env:"JOBPROGRESS_BACKSTOP_INTERVAL" default:"15s" help:"Within this time every watched job is read again, whatever was notified."`
	WriteTimeout     time.Duration `env:"JOBPROGRESS_WRITE_TIMEOUT" default:"10s" help:"After this time a viewer that does not read is cut off."`
	DrainTimeout     time.Duration `env:"JOBPROGRESS_DRAIN_TIMEOUT" default:"10s" help:"From the end of the lame duck time to the exit, at most."`
	LameDuck         time.Duration `env:"JOBPROGRESS_LAME_DUCK" default:"5s" help:"After SIGTERM, for so long /readyz says no and everything is answered. Ctrl-C does not wait."`
	MaxStreamAge     time.Duration `env:"JOBPROGRESS_MAX_STREAM_AGE" default:"0s" help:"After this time at most a stream ends, and its viewer comes back at once; 0 is never."`

	MaxStreams           int `env:"JOBPROGRESS_MAX_STREAMS" default:"100000" help:"Open streams of this server, at most."`
	MaxStreamsPerAccount int `env:"JOBPROGRESS_MAX_STREAMS_PER_ACCOUNT" default:"100" help:"Open streams of one account, at most."`

	logging

	secretFiles map[string]string `kong:"-"` // where secrets stand in files, by their variables
}

// validate checks the settings of serve.
func (c *serveCommand) validate() []error {
	invalid := slices.Concat(c.database.validate(), validateURL(c.ListenDatabaseURL, "LISTEN_DATABASE_URL (--listen-database-url)"), c.logging.validate())
	check := func(ok bool, flag, env, format string, args ...any) {
		if !ok {
			invalid = append(invalid, invalidSetting(flag, env, format, args...))
		}
	}
	for _, address := range []struct{ value, flag, env string }{
		{c.Addr, "addr", "JOBPROGRESS_ADDR"}, {c.AdminAddr, "admin-addr", "JOBPROGRESS_ADMIN_ADDR"},
	} {
		_, _, err := net.SplitHostPort(address.value)
		check(err == nil, address.flag, address.env, "%q is not host:port", address.value)
	}
	set := c.sources()
	switch {
	case c.InsecureNoAuth:
		check(len(set) == 0, "insecure-no-auth", "JOBPROGRESS_INSECURE_NO_AUTH", "contradicts %s: choose one", strings.Join(set, ", "))
		check(loopback(c.Addr), "insecure-no-auth", "JOBPROGRESS_INSECURE_NO_AUTH", "is refused on %q: only a loopback address may go without authentication", c.Addr)
	case len(set) == 0:
		check(false, "jwt-secret", "JOBPROGRESS_JWT_SECRET", "is missing: set the key of your tokens, or JOBPROGRESS_JWT_PUBLIC_KEY, JOBPROGRESS_JWKS_URL, JOBPROGRESS_AUTH_URL or JOBPROGRESS_SESSION_QUERY (or, on a loopback address, --insecure-no-auth)")
	case len(set) > 1:
		invalid = append(invalid, fmt.Errorf("%s contradict each other: choose one", strings.Join(set, ", ")))
	}
	if c.JWTPublicKey != "" {
		_, err := c.publicKey()
		check(err == nil, "jwt-public-key", "JOBPROGRESS_JWT_PUBLIC_KEY", "%w", err)
	}
	check(c.JWTPreviousSecret == "" || c.JWTSecret != "", "jwt-previous-secret", "JOBPROGRESS_JWT_PREVIOUS_SECRET", "goes together with --jwt-secret (JOBPROGRESS_JWT_SECRET), which takes its place")
	check(c.JWKSURL == "" || isURL(c.JWKSURL), "jwks-url", "JOBPROGRESS_JWKS_URL", "is not a URL like https://auth.example.com/.well-known/jwks.json")
	check(c.AuthURL == "" || isURL(c.AuthURL), "auth-url", "JOBPROGRESS_AUTH_URL", "is not a URL like https://app.example.com/api/whoami")
	noTokens := func(flag, env string) {
		check(c.JWTIssuer == "" && c.JWTAudience == "", flag, env, "knows no JOBPROGRESS_JWT_ISSUER or JOBPROGRESS_JWT_AUDIENCE")
	}
	if c.AuthURL != "" {
		noTokens("auth-url", "JOBPROGRESS_AUTH_URL")
	}
	if c.SessionQuery != "" {
		err := store.CheckSessionQuery(c.SessionQuery)
		check(err == nil, "session-query", "JOBPROGRESS_SESSION_QUERY", "%w", err)
		noTokens("session-query", "JOBPROGRESS_SESSION_QUERY")
	}
	check((c.TLSCert == "") == (c.TLSKey == ""), "tls-cert", "JOBPROGRESS_TLS_CERT", "goes together with --tls-key (JOBPROGRESS_TLS_KEY)")
	if c.TLSCert != "" && c.TLSKey != "" {
		_, err := c.certificate()
		check(err == nil, "tls-cert", "JOBPROGRESS_TLS_CERT", "%w", err)
	}
	for _, origin := range c.AllowedOrigins {
		err := httpapi.CheckOrigin(origin)
		check(err == nil, "allowed-origins", "JOBPROGRESS_ALLOWED_ORIGINS", "%w", err)
	}
	for _, d := range []struct {
		value     time.Duration
		flag, env string
	}{
		{c.PingInterval, "ping-interval", "JOBPROGRESS_PING_INTERVAL"},
		{c.BackstopInterval, "backstop-interval", "JOBPROGRESS_BACKSTOP_INTERVAL"},
		{c.WriteTimeout, "write-timeout", "JOBPROGRESS_WRITE_TIMEOUT"},
		{c.DrainTimeout, "drain-timeout", "JOBPROGRESS_DRAIN_TIMEOUT"},
	} {
		check(d.value >= 100*time.Millisecond, d.flag, d.env, "%s is less than 100ms", d.value)
	}
	check(c.LameDuck >= 0, "lame-duck", "JOBPROGRESS_LAME_DUCK", "%s is negative", c.LameDuck)
	check(c.MaxStreamAge == 0 || c.MaxStreamAge >= time.Second, "max-stream-age", "JOBPROGRESS_MAX_STREAM_AGE", "%s is neither 0 nor at least 1s", c.MaxStreamAge)
	check(c.MaxStreams > 0, "max-streams", "JOBPROGRESS_MAX_STREAMS", "%d is not positive", c.MaxStreams)
	check(c.MaxStreamsPerAccount > 0, "max-streams-per-account", "JOBPROGRESS_MAX_STREAMS_PER_ACCOUNT", "%d is not positive", c.MaxStreamsPerAccount)
	return invalid
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

func (c *serveCommand) certificate() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	return &pair, err
}

// loopback reports whether an address can only be reached from this machine.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
