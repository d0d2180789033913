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

func (c *tokenCommand) faults() []error {
	var faults []error
	if c.JWTSecret == "" {
		faults = append(faults, fault("jwt-secret", "JOBPROGRESS_JWT_SECRET", "is missing: set the key that serve has"))
	}
	if c.TTL <= 0 {
		faults = append(faults, fmt.Errorf("--ttl %s is not positive", c.TTL))
	}
	return faults
}

func (c *tokenCommand) run(_ context.Context, stdout, _ io.Writer) error {
	token, err := c.jwt(auth.Secret(c.JWTSecret), "").Mint(c.Account, c.TTL)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, token)
	return nil
}
