// The testbed gives the TypeScript tests a throwaway PostgreSQL with jobprogress installed: it prints its URL, stops and
// starts it when it reads "stop" and "start", and ends with its standard input.
package main

import (
	"bufio"
	"context"
	"fmt"
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
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "stop":
			err = server.Halt(ctx, false)
		case "start":
			err = server.Resume(ctx)
		}
		if err != nil {
			return err
		}
		fmt.Println(lines.Text())
	}
	return nil
}
