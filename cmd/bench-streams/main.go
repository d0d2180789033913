//go:build linux

// Command bench-streams measures what viewers cost the server: jobprogress with a throwaway PostgreSQL, and beside it, in the
// same run, the least that a net/http handler can do without one. It prints a table.
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
	"slices"
	"syscall"
	"time"

	"jobprogress/internal/pgtest"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "handler" {
		serveHandler()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var b bench
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of each shape; the median counts")
	flag.DurationVar(&b.time, "time", 5*time.Second, "how long jobs change in a round")
	flag.IntVar(&b.streams, "streams", 19_000, "the most idle streams; each takes a file descriptor here and in the server")
	flag.Parse()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-streams:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds  int
	time    time.Duration
	streams int

	program  string // jobprogress
	postgres *pgtest.Server
}

// shape is who watches what, and how often that changes.
type shape struct {
	name    string
	jobs    int  // that change
	viewers int  // of each job
	list    bool // each viewer watches an account's list, of listJobs jobs
	rate    int  // changes a second, of all jobs together; 0: nothing changes
}

const listJobs = 20

func (b *bench) shapes() []shape {
	return []shape{
		{name: "idle, 1,000 streams", jobs: 1, viewers: 1000},
		{name: fmt.Sprintf("idle, %d streams", b.streams), jobs: 1, viewers: b.streams},
		{name: "idle, 1,000 lists of 20 jobs", jobs: 1000, viewers: 1, list: true},
		{name: "1 job × 1,000 viewers, 50/s", jobs: 1, viewers: 1000, rate: 50},
		{name: "1,000 jobs × 1 viewer, 500/s", jobs: 1000, viewers: 1, rate: 500},
		{name: "1,000 lists of 20 jobs, 500/s", jobs: 1000, viewers: 1, list: true, rate: 500},
	}
}

// result is what a round, or the median of rounds, came to.
type result struct {
	bytes   float64       // of memory a stream
	cpu     float64       // microseconds of processor time a frame
	frames  float64       // a second
	skipped float64       // part of the changes that a viewer was not sent
	p50     time.Duration // from the change to the viewer
	p99     time.Duration
}

func (b *bench) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-streams-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.program = filepath.Join(dir, "jobprogress")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.program, "./cmd/jobprogress").CombinedOutput(); err != nil {
		return fmt.Errorf("build jobprogress (run this in the repository): %w: %s", err, out)
	}
	if b.postgres, err = pgtest.Start(ctx, func(string, ...any) {}); err != nil {
		return err
	}
	defer b.postgres.Stop()

	subjects := []struct {
		name  string
		start func(context.Context, shape) (subject, error)
	}{
		{"jobprogress", b.startService},
		{"net/http handler", startHandler},
	}
	fmt.Println("| | | bytes a stream | µs of CPU a frame | frames/s | skipped | p50 | p99 |\n|---|---|---|---|---|---|---|---|")
	for _, sh := range b.shapes() {
		results := make([][]result, len(subjects))
		for range b.rounds {
			for i, s := range subjects {
				r, err := b.round(ctx, sh, s.start)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", sh.name, s.name, err)
				}
				results[i] = append(results[i], r)
			}
		}
		for i, s := range subjects {
			printRow(sh, s.name, results[i])
		}
	}
	return ctx.Err()
}

// round measures one shape with a server of its own.
func (b *bench) round(ctx context.Context, sh shape, start func(context.Context, shape) (subject, error)) (r result, err error) {
	s, err := start(ctx, sh)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	before, err := s.memory()
	if err != nil {
		return r, err
	}
	v, err := openViewers(s.address(), s.requests())
	if err != nil {
		return r, err
	}
	defer v.close()
	pause(ctx, 2*time.Second)
	after, err := s.memory()
	if err != nil {
		return r, err
	}
	r.bytes = float64(after-before) / float64(sh.jobs*sh.viewers)
	if sh.rate == 0 {
		return r, ctx.Err()
	}
	v.begin()
	began, cpu := time.Now(), s.processor()
	changes, err := s.drive(ctx, b.time)
	if err != nil {
		return r, err
	}
	pause(ctx, 500*time.Millisecond) // for what is on its way
	frames, latencies := v.end()
	r.cpu = float64((s.processor() - cpu).Microseconds()) / float64(frames)
	r.frames = float64(frames) / time.Since(began).Seconds()
	r.skipped = 1 - float64(frames)/float64(changes*sh.viewers)
	slices.Sort(latencies)
	if n := len(latencies); n > 0 {
		r.p50, r.p99 = latencies[n/2], latencies[n*99/100]
	}
	return r, ctx.Err()
}

func printRow(sh shape, name string, rounds []result) {
	median := func(of func(result) float64) float64 {
		values := make([]float64, len(rounds))
		for i, r := range rounds {
			values[i] = of(r)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	fmt.Printf("| %s | %s | %.0f |", sh.name, name, median(func(r result) float64 { return r.bytes }))
	if sh.rate == 0 {
		fmt.Println(" | | | | |")
		return
	}
	fmt.Printf(" %.1f | %.0f | %.1f %% | %.1f ms | %.1f ms |\n",
		median(func(r result) float64 { return r.cpu }),
		median(func(r result) float64 { return r.frames }),
		100*median(func(r result) float64 { return r.skipped }),
		median(func(r result) float64 { return r.p50.Seconds() * 1000 }),
		median(func(r result) float64 { return r.p99.Seconds() * 1000 }))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
