package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/auth"
	"jobprogress/internal/httpapi"
	"jobprogress/internal/store"
)

// commands is the command line. Every flag is an environment variable too.
type commands struct {
	Serve     serveCommand     `cmd:"" help:"Serve the streams."`
	Install   installCommand   `cmd:"" help:"Attach the trigger and functions to the job table. Can be run again."`
	Uninstall uninstallCommand `cmd:"" help:"Take away all that install brought."`
	Check     checkCommand     `cmd:"" help:"Look for what stands in the way of jobs being shown, and say what to do."`
	Token     tokenCommand     `cmd:"" help:"Print a token for an account, to try things out."`
	Simulate  simulateCommand  `cmd:"" help:"Run jobs of each type against the job table, as a worker would."`
	Watch     watchCommand     `cmd:"" help:"Show the progress of a job in the terminal."`
	Ready     readyCommand     `cmd:"" help:"Ask a server on this machine whether it is ready, for a health check."`
	Version   versionCommand   `cmd:"" help:"Print version, revision and SQL version."`
}

// command is one of commands. validate returns all that is wrong with its settings, before anything is opened.
type command interface {
	validate() []error
	run(ctx context.Context, stdout, stderr io.Writer) error
}

// database is where the jobs are.
type database struct {
	DatabaseURL string `env:"DATABASE_URL" secret:"" placeholder:"URL" help:"Database with the job table. Without it the PG* variables count."`
}

// table is which of its tables holds them.
type table struct {
	Table string `env:"JOBPROGRESS_TABLE" default:"job" help:"The job table, schema-qualified or found by search_path."`
}

// tokens is how credentials look.
type tokens struct {
	JWTSecret    string `env:"JOBPROGRESS_JWT_SECRET" secret:"" placeholder:"SECRET" help:"Key of HS256 tokens, 32 bytes or more."`
	JWTIssuer    string `env:"JOBPROGRESS_JWT_ISSUER" placeholder:"ISS" help:"iss that tokens must have."`
	JWTAudience  string `env:"JOBPROGRESS_JWT_AUDIENCE" placeholder:"AUD" help:"aud that tokens must have."`
	AccountClaim string `env:"JOBPROGRESS_ACCOUNT_CLAIM" default:"sub" help:"Claim that holds the account."`
}

func (t tokens) jwt(keys auth.Keys, cookie string) auth.JWT {
	return auth.JWT{
		Keys:     keys,
		Cookie:   cookie,
		Claim:    t.AccountClaim,
		Issuer:   t.JWTIssuer,
		Audience: t.JWTAudience,
	}
}

// logging is how the log looks.
type logging struct {
	LogFormat string `env:"JOBPROGRESS_LOG_FORMAT" default:"text" help:"text or json, on stderr."`
	LogLevel  string `env:"JOBPROGRESS_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
}

func (l logging) validate() []error {
	var invalid []error
	if l.LogFormat != "text" && l.LogFormat != "json" {
		invalid = append(invalid, invalidSetting("log-format", "JOBPROGRESS_LOG_FORMAT", "%q is not text or json", l.LogFormat))
	}
	if err := new(slog.Level).UnmarshalText([]byte(l.LogLevel)); err != nil {
		invalid = append(invalid, invalidSetting("log-level", "JOBPROGRESS_LOG_LEVEL", "%q is not debug, info, warn or error", l.LogLevel))
	}
	return invalid
}

func (l logging) logger(w io.Writer) *slog.Logger {
	var options slog.HandlerOptions
	var level slog.Level
	level.UnmarshalText([]byte(l.LogLevel)) // checked by validate
	options.Level = level
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, &options))
	}
	return slog.New(slog.NewTextHandler(w, &options))
}

func (d database) validate() []error {
	return validateURL(d.DatabaseURL, "DATABASE_URL (--database-url)")
}

// validateURL checks what the source, a setting or a file, holds.
func validateURL(value, source string) []error {
	config, err := pgx.ParseConfig(value)
	if err != nil {
		// The error itself shows the value, which may be a secret that was meant for another setting.
		return []error{fmt.Errorf("%s is no URL like postgres://user@host/database, and no key=value pairs: %w", source, errors.Unwrap(err))}
	}
	for name, given := range config.RuntimeParams {
		// A URL without its scheme, or after NAME=, is read as keys and values, and passed over.
		if !parameterName.MatchString(name) || strings.Contains(given, "://") {
			return []error{fmt.Errorf("%s is no URL like postgres://user@host/database, and no key=value pairs", source)}
		}
	}
	return nil
}

// parameterName is how the names of PostgreSQL's settings look.
var parameterName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.$]*$`)

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

// errUsage is wrapped by errors about the settings.
var errUsage = errors.New("see jobprogress COMMAND --help")

// invalidSetting is something wrong with one setting, by both of its names.
func invalidSetting(flag, env, format string, args ...any) error {
	return fmt.Errorf("%s (--%s) %w", env, flag, fmt.Errorf(format, args...))
}
