package main

import (
	"context"
	"fmt"
	"io"

	"jobprogress/internal/store"
)

type uninstallCommand struct{ database }

func (c *uninstallCommand) run(ctx context.Context, stdout, _ io.Writer) error {
	if err := store.Uninstall(ctx, c.DatabaseURL); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "jobprogress is gone from this database")
	return nil
}
