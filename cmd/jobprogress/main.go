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
	err := run(untilSignal(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "jobprogress:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// errTerminated is the cause of a context that ended with SIGTERM. An interrupt (Ctrl-C) has nobody to wait for.
var errTerminated = errors.New("terminated")

// untilSignal is a context that ends with the first SIGTERM or interrupt. The second one is not ours to catch.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first := <-signals
		signal.Stop(signals)
		if first == syscall.SIGTERM {
			cancel(errTerminated)
		}
		cancel(context.Canceled)
	}()
	return ctx
}

// run is the whole program but for the process around it. It returns nil when ctx ends a command that runs until
// then, and an error that wraps errUsage when the settings are at fault.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	command, err := parse(args, getenv, stdout, stderr)
	if command == nil || err != nil {
		return err
	}
	return command.run(ctx, stdout, stderr)
}
