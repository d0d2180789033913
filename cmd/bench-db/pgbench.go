package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// jobID is the id of job i in SQL.
const jobID = `md5(%s::text)::uuid`

// update updates job :i as its worker would. done is the time in microseconds, so that viewers see how old it is.
var update = `update job set progress = jsonb_build_object('total', 9000000000000000,
  'done', (extract(epoch from clock_timestamp()) * 1000000)::bigint, 'succeeded', 0, 'failed', 0)
where id = ` + fmt.Sprintf(jobID, ":i") + `;
`

// updateScript updates one of the jobs.
func updateScript(jobs int) string {
	return fmt.Sprintf("\\set i random(1, %d)\n", jobs) + update
}

// riverScript updates one of River's jobs.
func riverScript(jobs int) string {
	return fmt.Sprintf("\\set i random(1, %d)\n", jobs) + `update river_job set metadata = jsonb_set(metadata, '{progress}',
  jsonb_build_object('total', 9000000000000000, 'done', (extract(epoch from clock_timestamp()) * 1000000)::bigint)) where id = :i;
`
}

// callItem says something of an item of the job. callNothing calls a function that does nothing in the same way: for short
// transactions most of the cost is in that.
var (
	callItem    = call("jobprogress.item")
	callNothing = call("nothing")
)

func call(function string) string {
	return "select " + function + "(" + fmt.Sprintf(jobID, ":i") + ", 's' || :item, 'song', 'in_progress', label => 'Artist - Title');\n"
}

// itemScript does the same in a transaction block, with another statement or none. All of it is one round trip, so that a
// call costs what it costs the database.
func itemScript(jobs int, call string) string {
	return fmt.Sprintf("\\set i random(1, %d)\n\\set item random(1, 40)\n", jobs) +
		strings.ReplaceAll("begin;\n"+update+call, ";\n", "\\;\n") + "end;\n"
}

// result is what pgbench reports.
type result struct {
	commits      float64 // a second
	transactions int
	failed       int // transactions that failed, and warnings
}

var (
	tps       = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	processed = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failures  = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`) // since PostgreSQL 15
)

// runPgbench runs the script against the database of url. An error that PostgreSQL does not let pgbench try again ends
// it with an error.
func (b *bench) runPgbench(ctx context.Context, url, script string, args ...string) (r result, err error) {
	run := exec.CommandContext(ctx, b.pgbench, append(args, "-n", "-f", "/dev/stdin", url)...)
	run.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		return r, fmt.Errorf("pgbench: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	speed, number := tps.FindSubmatch(out), processed.FindSubmatch(out)
	if speed == nil || number == nil {
		return r, fmt.Errorf("pgbench reports no transactions:\n%s", out)
	}
	if r.commits, err = strconv.ParseFloat(string(speed[1]), 64); err != nil {
		return r, fmt.Errorf("pgbench: tps: %w", err)
	}
	if r.transactions, err = strconv.Atoi(string(number[1])); err != nil {
		return r, fmt.Errorf("pgbench: transactions: %w", err)
	}
	if found := failures.FindSubmatch(out); found != nil {
		r.failed, _ = strconv.Atoi(string(found[1])) // it is digits
	}
	r.failed += bytes.Count(stderr.Bytes(), []byte("WARNING:"))
	return r, nil
}
