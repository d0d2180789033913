package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"jobprogress/internal/auth"
	"jobprogress/internal/httpapi"
	"jobprogress/internal/store"
)

// sources are the variables that say who is asking. There must be one.
func (c *serveCommand) sources() (set []string) {
	for _, way := range []struct{ env, value string }{
		{"JOBPROGRESS_JWT_SECRET", c.JWTSecret}, {"JOBPROGRESS_JWT_PUBLIC_KEY", c.JWTPublicKey},
		{"JOBPROGRESS_JWKS_URL", c.JWKSURL}, {"JOBPROGRESS_AUTH_URL", c.AuthURL}, {"JOBPROGRESS_SESSION_QUERY", c.SessionQuery},
	} {
		if way.value != "" {
			set = append(set, way.env)
		}
	}
	return set
}

// authenticator is the one that the settings ask for. run is its background work.
func (c *serveCommand) authenticator(s *store.Store, files *files) (a httpapi.Authenticator, run func(context.Context) error, err error) {
	run = func(context.Context) error { return nil }
	switch {
	case c.InsecureNoAuth:
		return auth.None{}, run, nil
	case c.AuthURL != "":
		application := auth.NewApplication(c.AuthURL)
		return application, func(ctx context.Context) error {
			<-ctx.Done()
			application.Close()
			return nil
		}, nil
	case c.SessionQuery != "":
		sessions := s.Sessions(c.SessionQuery)
		check := func(ctx context.Context) error {
			if err := sessions.Check(ctx); err != nil && ctx.Err() == nil {
				files.log.Error("the session query does not work: nobody can be let in", "error", err)
			}
			return nil
		}
		return auth.Session{Sessions: sessions, Cookie: c.Cookie}, check, nil
	case c.JWKSURL != "":
		keys := auth.NewJWKS(c.JWKSURL, files.log)
		return c.jwt(keys, c.Cookie), keys.Run, nil
	case c.JWTPublicKey != "":
		key, err := c.publicKey()
		return c.jwt(auth.PublicKeyFile(reload(files, key, c.publicKey, c.JWTPublicKey)), c.Cookie), run, err
	}
	return c.jwt(c.secrets(files), c.Cookie), run, nil
}

// secrets are the keys of HS256.
func (c *serveCommand) secrets(files *files) auth.Keys {
	settings := []struct{ env, value string }{
		{"JOBPROGRESS_JWT_SECRET", c.JWTSecret}, {previousSecret, c.JWTPreviousSecret},
	}
	var present auth.Secrets
	var names []string
	for _, setting := range settings {
		if setting.value != "" {
			present = append(present, auth.Secret(setting.value))
		}
		if file := c.secretFiles[setting.env]; file != "" {
			names = append(names, file)
		}
	}
	if names == nil {
		return present
	}
	// Together: a request must not meet a new secret without the one before.
	load := func() (all auth.Secrets, err error) {
		for _, setting := range settings {
			if file := c.secretFiles[setting.env]; file != "" {
				setting.value, err = readSecret(setting.env, file)
				if err != nil && (setting.env != previousSecret || !errors.Is(err, fs.ErrNotExist)) {
					return nil, err // a previous one that was taken away counts no more
				}
			}
			if setting.value != "" {
				all = append(all, auth.Secret(setting.value))
			}
		}
		warnOfShort(files.log, string(all[0]))
		return all, nil
	}
	return auth.SecretFiles(reload(files, present, load, names...))
}

// leastSecret is what RFC 7518, section 3.2, asks of a key for HS256, in bytes.
const leastSecret = 32

func warnOfShort(log *slog.Logger, secret string) {
	if len(secret) < leastSecret {
		log.Warn("the JWT secret is short: HS256 asks for 32 bytes or more", "bytes", len(secret))
	}
}

// follow returns a function for the present value of a database URL, which changes if it stands in a file.
func (c *serveCommand) follow(files *files, env, value string) func() string {
	file, ok := c.secretFiles[env]
	if !ok {
		return func() string { return value }
	}
	return reload(files, value, func() (string, error) { return readSecret(env, file) }, file)
}

func (c *serveCommand) publicKey() (auth.PublicKey, error) {
	text, err := os.ReadFile(c.JWTPublicKey)
	if err != nil {
		return auth.PublicKey{}, err // it names the file
	}
	key, err := auth.ParsePublicKey(text)
	if err != nil {
		return key, fmt.Errorf("%s: %w", c.JWTPublicKey, err)
	}
	return key, nil
}
