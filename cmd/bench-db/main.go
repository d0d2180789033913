// Command bench-db measures what attaching jobprogress costs the database: pgbench against a throwaway PostgreSQL, with
// servers and viewers as in production. It prints a table and writes it into README.md.
package main

import (
	"context"
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
	defer stop()
	var b bench
	flag.IntVar(&b.rounds, "rounds", 7, "rounds of each case, of which the median counts")
	flag.DurationVar(&b.time, "time", 5*time.Second, "how long pgbench runs in a round")
	flag.DurationVar(&b.slowTime, "slow-time", 30*time.Second, "how long the slow work runs")
	flag.StringVar(&b.readme, "readme", "", "file whose cost card is to be written")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-db:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	rounds         int
	time, slowTime time.Duration
	readme         string

	pgbench, program string // paths
	server           *pgtest.Server
	subjects         []*subject
}

// jobs is how many jobs the table has.
const jobs = 1000

// writers are how many update them at a time.
var writers = []int{1, 8, 16}

func (b *bench) run(ctx context.Context) (err error) {
	if b.pgbench, err = pgtest.Program(ctx, "pgbench"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "jobprogress-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.program = filepath.Join(dir, "jobprogress")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.program, "jobprogress/cmd/jobprogress").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	// A disk that is waited for is what makes commits wait for one another.
	if b.server, err = pgtest.StartOwn(ctx, say, "fsync=on", "full_page_writes=on", "shared_buffers=128MB"); err != nil {
		return err
	}
	defer b.server.Stop()
	b.subjects = subjects()
	for _, s := range b.subjects {
		defer s.close() // also of what was prepared only in part
		if err := s.prepare(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, n := range writers {
		for round := range b.rounds {
			for i := range b.subjects { // no subject is always first, or after the same
				s := b.subjects[(i*(round%2*4+1)+round)%len(b.subjects)]
				if err := s.round(ctx, b, n); err != nil {
					return fmt.Errorf("%s, %d writers: %w", s.name, n, err)
				}
			}
			say("%d writers, round %d of %d:", n, round+1, b.rounds)
			for _, s := range b.subjects {
				say("  %s %.0f", s.name, s.measured[n].commits[round])
			}
		}
	}
	slow, err := b.slowWork(ctx)
	if err != nil {
		return fmt.Errorf("slow work: %w", err)
	}
	many, err := b.manyJobs(ctx)
	if err != nil {
		return fmt.Errorf("many jobs: %w", err)
	}
	card := b.card(slow, many)
	fmt.Print(card)
	if b.readme == "" {
		return nil
	}
	return writeCard(b.readme, card)
}

// The marks in README.md between which the card stands.
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
