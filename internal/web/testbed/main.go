// The testbed gives the TypeScript tests a throwaway PostgreSQL with jobprogress installed: it prints its URL, and ends
// with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"jobprogress/internal/pgtest"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	server, err := pgtest.StartOwn(ctx, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		return err
	}
	defer server.Stop()
	name, err := pgtest.CreateInstalled(ctx, server.URL)
	if err != nil {
		return err
	}
	fmt.Println(pgtest.WithDatabase(server.URL, name))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
