//go:build linux

// Command bench-streams measures what viewers cost the server: jobprogress with a throwaway PostgreSQL, and beside it, in the
// same run, the least that a net/http handler can do without one. It prints tables, or writes them and a chart.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
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
		serveHandler(append(os.Args, "")[2])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var b bench
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of each shape; the median counts")
	flag.DurationVar(&b.time, "time", 5*time.Second, "how long jobs change in a round")
	flag.IntVar(&b.streams, "streams", 19_000, "the most idle streams; each takes a file descriptor here and in the server")
	readme := flag.String("readme", "", "file whose part between the marks is replaced; streams.svg goes beside it")
	flag.Parse()
	err := b.run(ctx, *readme)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-streams:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds  int
	time    time.Duration
	streams int

	program     string // jobprogress
	certificate string // PEM, with its key
	postgres    *pgtest.Server
	client      *http.Client
}

// shape is who watches what, and how often that changes.
type shape struct {
	name     string
	jobs     int  // that change
	viewers  int  // of each job; of all, if they are shown together
	together bool // on one stream
	tls      int  // how many streams share a connection of HTTP/2 with TLS, if they take those
	rate     int  // changes a second, of all jobs together; 0: nothing changes
	items    int  // how many items change at once, if not the progress does
}

func (s shape) streams() int {
	if s.together {
		return s.viewers
	}
	return s.jobs * s.viewers
}

func (s shape) scheme() string {
	if s.tls > 0 {
		return "https://"
	}
	return "http://"
}

func (b *bench) idle() []shape {
	return []shape{
		{name: "1,000 streams of one job", jobs: 1, viewers: 1000},
		{name: thousands(b.streams) + " streams of one job", jobs: 1, viewers: b.streams},
		{name: thousands(b.streams) + " streams, a job each", jobs: b.streams, viewers: 1},
		{name: "10,000 streams of the same 20 jobs", jobs: 20, viewers: 10_000, together: true},
		{name: "2,000 connections of HTTP/2 with TLS, a stream each", jobs: 1, viewers: 2000, tls: 1},
		{name: "200 connections of HTTP/2 with TLS, 10 streams each", jobs: 1, viewers: 2000, tls: 10},
	}
}

func (b *bench) busy() []shape {
	return []shape{
		{name: "1 job, 1,000 viewers, 50 changes/s", jobs: 1, viewers: 1000, rate: 50},
		{name: "1,000 jobs, 1 viewer each, 500 changes/s", jobs: 1000, viewers: 1, rate: 500},
		{name: "1,000 jobs, 1 viewer each, 400 changes/s", jobs: 1000, viewers: 1, rate: 400},
		{name: "20 jobs on each of 1,000 streams, 50 changes/s", jobs: 20, viewers: 1000, together: true, rate: 50},
	}
}

// result is what a round came to.
type result struct {
	bytes   float64       // of memory a stream
	opened  float64       // streams a second
	cpu     float64       // microseconds of processor time a frame
	frames  float64       // a second
	skipped float64       // part of the changes that a viewer was not sent
	p50     time.Duration // from the change to the viewer
	p99     time.Duration
}

// starter starts one of the two that are compared.
type starter struct {
	name  string
	start func(context.Context, shape) (subject, error)
}

func (b *bench) run(ctx context.Context, readme string) error {
	dir, err := os.MkdirTemp("", "bench-streams-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.program = filepath.Join(dir, "jobprogress")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.program, "./cmd/jobprogress").CombinedOutput(); err != nil {
		return fmt.Errorf("build jobprogress (run this in the repository): %w: %s", err, out)
	}
	if b.certificate, err = writeCertificate(dir); err != nil {
		return err
	}
	b.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: writers}}
	if b.postgres, err = pgtest.Start(ctx, func(string, ...any) {}); err != nil {
		return err
	}
	defer b.postgres.Stop()

	starters := []starter{{"jobprogress", b.startService}, {"net/http handler", b.startHandler}}
	var r report
	for _, sh := range b.idle() {
		if err := b.measure(ctx, sh, starters, b.idleRound, &r.idle); err != nil {
			return err
		}
	}
	for _, sh := range b.busy() {
		if err := b.measure(ctx, sh, starters, b.busyRound, &r.busy); err != nil {
			return err
		}
	}
	for _, s := range starters {
		most, err := with(ctx, shape{jobs: 1, viewers: 1000, rate: 50}, s, b.most)
		if err != nil {
			return fmt.Errorf("most frames, %s: %w", s.name, err)
		}
		r.most = append(r.most, row{"1 job, 1,000 viewers, items", s.name, most})
	}
	return r.write(b, readme)
}

// measurement measures a server that has the jobs of the shape.
type measurement func(ctx context.Context, sh shape, server subject) (result, error)

// with measures a server of its own.
func with(ctx context.Context, sh shape, s starter, measure measurement) (r result, err error) {
	server, err := s.start(ctx, sh)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	return measure(ctx, sh, server)
}

// measure appends the median of interleaved rounds of each subject.
func (b *bench) measure(ctx context.Context, sh shape, starters []starter, round measurement, rows *[]row) error {
	results := make([][]result, len(starters))
	for range b.rounds {
		for i, s := range starters {
			r, err := with(ctx, sh, s, round)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", sh.name, s.name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	for i, s := range starters {
		*rows = append(*rows, row{sh.name, s.name, medians(results[i])})
		fmt.Fprintln(os.Stderr, sh.name, s.name, medians(results[i]))
	}
	return ctx.Err()
}

// settle is how long a server is left alone before it is measured.
const settle = 2 * time.Second

// collections is how often the garbage is collected before memory is measured: what pools keep goes with the second, and stacks
// are halved by each.
const collections = 5

// idleRound measures what quiet streams take. The server has had streams before, so that what it takes once does not count.
func (b *bench) idleRound(ctx context.Context, sh shape, server subject) (r result, err error) {
	quiet := func() (int64, error) {
		pause(ctx, settle)
		if err := server.collect(ctx); err != nil {
			return 0, err
		}
		return server.memory()
	}
	requests := server.requests()
	open := b.opener(sh)
	first, err := open(server.address(), requests[:min(len(requests), 1000)])
	if err != nil {
		return r, err
	}
	first.close()
	before, err := quiet()
	if err != nil {
		return r, err
	}
	began := time.Now()
	v, err := open(server.address(), requests)
	if err != nil {
		return r, err
	}
	defer v.close()
	r.opened = float64(len(requests)) / time.Since(began).Seconds()
	after, err := quiet()
	if err != nil {
		return r, err
	}
	r.bytes = float64(after-before) / float64(sh.streams())
	return r, ctx.Err()
}

// busyRound measures what changes cost, and how long they take.
func (b *bench) busyRound(ctx context.Context, sh shape, server subject) (r result, err error) {
	v, err := openViewers(server.address(), server.requests())
	if err != nil {
		return r, err
	}
	defer v.close()
	pause(ctx, settle)
	return b.drive(ctx, sh, server, v)
}

// drive has jobs change, and measures what comes.
func (b *bench) drive(ctx context.Context, sh shape, server subject, v *viewers) (r result, err error) {
	v.begin()
	began, cpu := time.Now(), server.processor()
	changes, err := server.drive(ctx, sh, b.time)
	if err != nil {
		return r, err
	}
	took := time.Since(began)
	pause(ctx, 500*time.Millisecond) // for what is on its way
	frames, latencies := v.end()
	r.cpu = float64((server.processor() - cpu).Microseconds()) / float64(frames)
	r.frames = float64(frames) / took.Seconds()
	r.skipped = 1 - float64(frames)/float64(changes*sh.viewers*max(sh.items, 1))
	slices.Sort(latencies)
	if n := len(latencies); n > 0 {
		r.p50, r.p99 = latencies[n/2], latencies[n*99/100]
	}
	return r, ctx.Err()
}

// most finds the most frames a second that arrive with a p99 of less than a second, and at most a hundredth skipped: more and
// more items of a job change at once.
func (b *bench) most(ctx context.Context, sh shape, server subject) (best result, err error) {
	v, err := openViewers(server.address(), server.requests())
	if err != nil {
		return best, err
	}
	defer v.close()
	for items := 1.0; items <= 64; items *= 1.5 {
		sh.items = int(items)
		r, err := b.drive(ctx, sh, server, v)
		if err != nil {
			return best, err
		}
		fmt.Fprintln(os.Stderr, sh.items*sh.rate*sh.viewers, "frames/s asked:", r)
		if r.p99 > time.Second || r.skipped > 0.01 {
			break
		}
		best = r
		pause(ctx, settle)
	}
	return best, ctx.Err()
}

func medians(rounds []result) result {
	median := func(of func(result) float64) float64 {
		values := make([]float64, len(rounds))
		for i, r := range rounds {
			values[i] = of(r)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return result{
		bytes:   median(func(r result) float64 { return r.bytes }),
		opened:  median(func(r result) float64 { return r.opened }),
		cpu:     median(func(r result) float64 { return r.cpu }),
		frames:  median(func(r result) float64 { return r.frames }),
		skipped: median(func(r result) float64 { return r.skipped }),
		p50:     time.Duration(median(func(r result) float64 { return float64(r.p50) })),
		p99:     time.Duration(median(func(r result) float64 { return float64(r.p99) })),
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
