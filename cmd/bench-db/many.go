package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	manyName = "10000 watched jobs"
	// manyJobs are all watched, each by one viewer, and all change.
	manyJobs = 10_000
)

// manyJobs measures what it takes the database to have them read.
func (b *bench) manyJobs(ctx context.Context) (*measured, error) {
	d := &database{name: "many", jobs: manyJobs, attach: install("on"), serve: true, watched: manyJobs}
	defer d.close()
	if err := d.prepare(ctx, b); err != nil {
		return nil, err
	}
	s := &subject{name: manyName, database: d, script: updateScript(manyJobs)}
	most := writers[len(writers)-1]
	for round := range b.rounds {
		if err := s.round(ctx, b, most); err != nil {
			return nil, err
		}
		say("%s, round %d of %d", manyName, round+1, b.rounds)
	}
	return s.measured[most], nil
}

// tick is the unit of /proc on Linux, which is where these are measured.
const tick = time.Second / 100

// processor is the processor time that the sessions of the server have taken.
func (d *database) processor(ctx context.Context) (total time.Duration, err error) {
	if !d.serve {
		return 0, nil
	}
	rows, err := d.admin.Query(ctx, `select pid from pg_stat_activity where datname = current_database() and application_name like 'jobprogress%'`)
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("the database's processes can't be seen from here: %w", err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] { // in user mode, and in the kernel
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}
