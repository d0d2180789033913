package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

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

// authenticator is the one that the settings ask for, and what it does by itself for as long as we serve.
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
		key, err := reload(files, c.publicKey, c.JWTPublicKey)
		if err != nil {
			return nil, nil, err
		}
		return c.jwt(auth.PublicKeyFile(key), c.Cookie), run, nil
	}
	keys, err := c.secrets(files)
	return c.jwt(keys, c.Cookie), run, err
}

// secrets are the keys of HS256.
func (c *serveCommand) secrets(files *files) (auth.Keys, error) {
	present, err := c.follow(files, "JOBPROGRESS_JWT_SECRET", c.JWTSecret)
	if err != nil {
		return nil, err
	}
	previous, err := c.follow(files, "JOBPROGRESS_JWT_PREVIOUS_SECRET", c.JWTPreviousSecret)
	if err != nil {
		return nil, err
	}
	keys := func() (all auth.Secrets) {
		for _, secret := range []string{present(), previous()} {
			if secret != "" {
				all = append(all, auth.Secret(secret))
			}
		}
		return all
	}
	if c.secretFiles["JOBPROGRESS_JWT_SECRET"] == "" && c.secretFiles["JOBPROGRESS_JWT_PREVIOUS_SECRET"] == "" {
		return keys(), nil
	}
	return auth.SecretFiles(keys), nil
}

// follow returns a function for the present value of a secret, which changes if it stands in a file.
func (c *serveCommand) follow(files *files, env, value string) (func() string, error) {
	file, ok := c.secretFiles[env]
	if !ok {
		return func() string { return value }, nil
	}
	return reload(files, func() (string, error) {
		text, err := readSecret(file)
		if err == nil && strings.HasSuffix(env, "DATABASE_URL") {
			err = errors.Join(validateURL(text, "", secretFile(env))...)
		}
		return text, err
	}, file)
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
