package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"jobprogress/internal/auth"
)

type tokenCommand struct {
	Account string `arg:"" help:"The account_id whose jobs the token shows."`
	tokens
	TTL time.Duration `default:"1h" help:"How long the token is valid."`
}

func (c *tokenCommand) validate() []error {
	var invalid []error
	if c.JWTSecret == "" {
		invalid = append(invalid, invalidSetting("jwt-secret", "JOBPROGRESS_JWT_SECRET", "is missing: set the key that serve has"))
	}
	if c.TTL <= 0 {
		invalid = append(invalid, fmt.Errorf("--ttl %s is not positive", c.TTL))
	}
	return invalid
}

func (c *tokenCommand) run(_ context.Context, stdout, _ io.Writer) error {
	token, err := c.jwt(auth.Secret(c.JWTSecret), "").Mint(c.Account, c.TTL)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, token)
	return nil
}
