package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/auth"
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
		// The error shows the value, which may be a secret that was meant for another setting, and that of a URL which can't
		// be parsed shows parts of its password.
		if u, notURL := url.Parse(value); notURL == nil && strings.HasPrefix(u.Scheme, "postgres") && errors.Unwrap(err) != nil {
			return []error{fmt.Errorf("%s can't be used: %w", source, errors.Unwrap(err))}
		}
		return []error{fmt.Errorf("%s %s", source, noDatabaseURL)}
	}
	for name, given := range config.RuntimeParams {
		// A URL without its scheme, or after NAME=, is read as keys and values, and passed over.
		if !parameterName.MatchString(name) || strings.Contains(given, "://") {
			return []error{fmt.Errorf("%s %s", source, noDatabaseURL)}
		}
	}
	return nil
}

const noDatabaseURL = "is no URL like postgres://user@host/database, and no key=value pairs; in a URL, special characters of a password are percent-encoded"

// parameterName is how the names of PostgreSQL's settings look.
var parameterName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.$]*$`)

// errUsage is wrapped by errors about the settings.
var errUsage = errors.New("see jobprogress COMMAND --help")

// invalidSetting is something wrong with one setting, by both of its names.
func invalidSetting(flag, env, format string, args ...any) error {
	return fmt.Errorf("%s (--%s) %w", env, flag, fmt.Errorf(format, args...))
}
