// Command jobprogress shows the progress of jobs in a PostgreSQL table in the browser, as it happens.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt is not ours to catch
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "jobprogress:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// run is the whole program but for the process around it. It returns nil when ctx ends a command that runs until
// then, and an error that wraps errUsage when the settings are at fault.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	command, err := parse(args, getenv, stdout, stderr)
	if command == nil || err != nil {
		return err
	}
	return command.run(ctx, stdout, stderr)
}
