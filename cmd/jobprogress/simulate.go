package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

type simulateCommand struct {
	database
	table
	Account     string  `default:"00000000-0000-4000-8000-00000000000a" help:"Owner of the jobs, a UUID."`
	Count       int     `default:"0" help:"Jobs to run; 0 goes on until interrupted."`
	Parallel    int     `default:"2" help:"Jobs that run at a time."`
	Items       int     `default:"40" help:"Items of a job, about."`
	Rate        float64 `default:"4" help:"Items a second, of each job."`
	FailureRate float64 `default:"0.05" help:"Share of items that fail, and chance that a job ends early with an error: 0 to 1."`
}

func (c *simulateCommand) validate() []error {
	invalid := c.database.validate()
	check := func(ok bool, format string, args ...any) {
		if !ok {
			invalid = append(invalid, fmt.Errorf(format, args...))
		}
	}
	_, err := uuid.Parse(c.Account)
	check(err == nil, "--account %q is not a UUID", c.Account)
	check(c.Count >= 0, "--count %d is negative", c.Count)
	check(c.Parallel > 0, "--parallel %d is not positive", c.Parallel)
	check(c.Items > 0, "--items %d is not positive", c.Items)
	check(c.Rate > 0, "--rate %v is not positive", c.Rate)
	check(c.FailureRate >= 0 && c.FailureRate <= 1, "--failure-rate %v is not between 0 and 1", c.FailureRate)
	return invalid
}

func (c *simulateCommand) run(ctx context.Context, stdout, _ io.Writer) error {
	config, err := pgxpool.ParseConfig(c.DatabaseURL)
	if err != nil {
		return fmt.Errorf("parse database URL: %w", err)
	}
	config.MaxConns = int32(c.Parallel)
	config.ConnConfig.RuntimeParams["application_name"] = "jobprogress simulate"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("open pool: %w", err)
	}
	defer pool.Close()

	// Quoted as needed by the database itself, which knows best what the name means.
	var table *string
	if err := pool.QueryRow(ctx, `select to_regclass($1)::text`, c.Table).Scan(&table); err != nil {
		return fmt.Errorf("find table %q: %w", c.Table, err)
	}
	if table == nil {
		return fmt.Errorf("table %q does not exist: name the job table with --table", c.Table)
	}

	var begun atomic.Int64
	var printing sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for range c.Parallel {
		g.Go(func() error {
			for n := begun.Add(1); ctx.Err() == nil && (c.Count == 0 || n <= int64(c.Count)); n = begun.Add(1) {
				w := worker{pool: pool, table: *table, settings: c, kind: kinds[int(n)%len(kinds)], id: uuid.NewString()}
				outcome, err := w.work(ctx)
				if err != nil {
					return fmt.Errorf("simulate %s: %w", w.kind.jobType, err)
				}
				printing.Lock()
				fmt.Fprintf(stdout, "%s %s %s\n", w.id, w.kind.jobType, outcome)
				printing.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}
