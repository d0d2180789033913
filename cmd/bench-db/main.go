// Command bench-db measures what attaching jobprogress costs the database: pgbench against a throwaway PostgreSQL, with
// servers and viewers as in production. It prints a table and, with -readme, writes it into that file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"jobprogress/internal/pgtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var b bench
	flag.IntVar(&b.rounds, "rounds", 7, "rounds of each case; the median counts")
	flag.DurationVar(&b.time, "time", 5*time.Second, "how long pgbench runs in a round")
	flag.DurationVar(&b.slowTime, "slow-time", 30*time.Second, "how long the slow work runs")
	flag.StringVar(&b.only, "only", "", "parts of the names of the cases to run, comma-separated; their baselines always run (default: all)")
	flag.StringVar(&b.readme, "readme", "", "file to write the card into")
	flag.Parse()
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-db:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	rounds         int
	time, slowTime time.Duration
	only, readme   string

	pgbench, program string // paths
	server           *pgtest.Server
	subjects         []*subject
}

// jobs is how many jobs a table has, unless a case says otherwise.
const jobs = 1000

func (b *bench) run(ctx context.Context) error {
	if err := b.validate(); err != nil {
		return err
	}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.runSubjects(ctx); err != nil {
		return err
	}
	var slow *slowness
	if b.wants(slowName) {
		if slow, err = b.slowWork(ctx); err != nil {
			return fmt.Errorf("%s: %w", slowName, err)
		}
	}
	var many *measured
	if b.wants(manyName) {
		if many, err = b.manyJobs(ctx); err != nil {
			return fmt.Errorf("%s: %w", manyName, err)
		}
	}
	card := b.card(slow, many)
	fmt.Print(card)
	if b.readme == "" {
		return nil
	}
	return writeCard(b.readme, card)
}

// validate checks the flags, and selects the subjects.
func (b *bench) validate() error {
	switch {
	case b.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case b.time < time.Second || b.slowTime < time.Second:
		return errors.New("-time and -slow-time must be at least 1s: pgbench counts in seconds")
	case b.only != "" && b.readme != "":
		return errors.New("-readme needs all cases: leave out -only")
	}
	b.subjects = selection(subjects(), b.wants)
	if len(b.subjects) == 0 && !b.wants(slowName) && !b.wants(manyName) {
		return fmt.Errorf("-only %q names no case", b.only)
	}
	return nil
}

// wants reports whether -only asks for what has this name.
func (b *bench) wants(name string) bool {
	if b.only == "" {
		return true
	}
	for part := range strings.SplitSeq(strings.ToLower(b.only), ",") {
		if part = strings.TrimSpace(part); part != "" && strings.Contains(strings.ToLower(name), part) {
			return true
		}
	}
	return false
}

// start builds the program and starts the database server. The caller calls stop.
func (b *bench) start(ctx context.Context) (stop func(), err error) {
	if b.pgbench, err = pgtest.Program(ctx, "pgbench"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "jobprogress-bench-")
	if err != nil {
		return nil, err
	}
	b.program = filepath.Join(dir, "jobprogress")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.program, "jobprogress/cmd/jobprogress").CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("build: %w: %s", err, out)
	}
	// Commits wait for one another because they wait for the disk, so fsync must be on.
	if b.server, err = pgtest.StartOwn(ctx, say, "fsync=on", "full_page_writes=on", "shared_buffers=128MB"); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return func() {
		b.server.Stop()
		os.RemoveAll(dir)
	}, nil
}

// say reports progress to the person who runs the bench.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// The marks between which the card stands in the file.
const (
	cardBegins = "<!-- make bench-db writes from here -->\n"
	cardEnds   = "<!-- to here -->\n"
)

func writeCard(path, card string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), cardBegins)
	_, after, ok2 := strings.Cut(rest, cardEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the card, between %q and %q", path, cardBegins, cardEnds)
	}
	return os.WriteFile(path, []byte(before+cardBegins+"\n"+card+"\n"+cardEnds+after), 0o644)
}
