package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// slowness is how long it took from updates until the state was known, in three ways that ran at the same time.
type slowness struct {
	frames   []time.Duration // at viewers, by way of the server
	payloads []time.Duration // at a bare LISTEN loop that finds the state in the payload
	rows     []time.Duration // at a bare LISTEN loop that reads the row
	sent     []time.Duration // of these, at the other end of a TCP connection
	inexact  int             // viewers that did not end at the last state
	failed   int             // transactions and reads
}

const (
	slowName = "slow work"
	// slowJobs are updated slowRate times a second altogether: a few times each.
	slowJobs = 20
	slowRate = 60
)

// slowWork has a few watched jobs updated a few times a second.
//
// Each way has a database of its own, with the same script at the same rate at the same time, on the same server. In one
// database, PostgreSQL would wake all three listeners at each commit, and two of them would read at once: on two cores
// each would wait for the others, and the longest way the longest. Apart, each has its commits to itself, and all have
// the same disk and the same neighbours.
func (b *bench) slowWork(ctx context.Context) (*slowness, error) {
	served := &database{name: "slow_served", jobs: jobs, attach: install("on"), serve: true, watched: slowJobs}
	payload := &database{name: "slow_payload", jobs: jobs, attach: attachState}
	// Without the gate, for nobody holds its locks there. It costs microseconds.
	read := &database{name: "slow_read", jobs: jobs, attach: install("off")}
	ways := []*database{served, payload, read}
	for _, d := range ways {
		defer d.close()
		if err := d.prepare(ctx, b); err != nil {
			return nil, err
		}
	}
	if _, err := served.service.calm(ctx); err != nil {
		return nil, err
	}
	var slow slowness
	stopPayload, err := listenForState(ctx, payload.url, &slow.payloads)
	if err != nil {
		return nil, err
	}
	stopRead, err := listenAndRead(ctx, read.url, &slow)
	if err != nil {
		stopPayload()
		return nil, err
	}
	before, err := served.service.counts(ctx)
	if err == nil {
		served.audience.begin()
		slow.failed, err = b.updateSlowly(ctx, ways)
		time.Sleep(time.Second) // until the last ones have arrived
	}
	for _, stop := range []func() error{stopPayload, stopRead} {
		if stopped := stop(); err == nil {
			err = stopped
		}
	}
	if err != nil {
		return nil, err
	}
	slow.frames = served.audience.end()
	if slow.inexact, err = served.exact(ctx, false); err != nil {
		return nil, err
	}
	after, err := served.service.counts(ctx)
	slow.failed += int(after.failed - before.failed)
	return &slow, err
}

// updateSlowly updates the jobs of all databases at the same time, and returns how many transactions failed.
func (b *bench) updateSlowly(ctx context.Context, databases []*database) (failed int, err error) {
	results := make([]result, len(databases))
	g, ctx := errgroup.WithContext(ctx)
	for i, d := range databases {
		g.Go(func() (err error) {
			results[i], err = b.runPgbench(ctx, d.url, updateScript(slowJobs), "-c", "4", "-j", "1", "-R", fmt.Sprint(slowRate), "-T", fmt.Sprint(int(b.slowTime.Seconds())))
			return err
		})
	}
	err = g.Wait()
	for _, r := range results {
		failed += r.failed
	}
	return failed, err
}

// attachState attaches a trigger that notifies the state itself.
func attachState(ctx context.Context, url string) error {
	return execute(ctx, url, `
		create function notify_state() returns trigger language plpgsql as $$
		begin
			perform pg_notify('state', json_build_object('id', new.id, 'done', new.progress -> 'done')::text);
			return null;
		end $$;
		create trigger notify_state after update on job for each row execute function notify_state()`)
}

// listenForState adds to ages how old each state is when its notification arrives.
func listenForState(ctx context.Context, url string, ages *[]time.Duration) (stop func() error, err error) {
	return listen(ctx, url, "state", func(_ context.Context, _ *pgx.Conn, payload string) error {
		return addAge(ages, time.Now(), payload)
	})
}

// listenAndRead adds to slow.rows how old each state is when its row has been read, and to slow.sent how old it is when
// it has come out of a TCP connection, which is the least that a viewer elsewhere can see.
func listenAndRead(ctx context.Context, url string, slow *slowness) (stop func() error, err error) {
	out, in, err := loopback()
	if err != nil {
		return nil, err
	}
	arrived := make(chan error, 1)
	go func() { arrived <- readStates(in, &slow.sent) }()
	// pgx prepares the statement at its first use and keeps it.
	const rowSQL = `select status::text, progress::text from job where id = $1`
	stopListening, err := listen(ctx, url, "jobprogress", func(ctx context.Context, conn *pgx.Conn, id string) error {
		var status, progress string
		if err := conn.QueryRow(ctx, rowSQL, pgx.QueryExecModeCacheStatement, id).Scan(&status, &progress); err != nil {
			return fmt.Errorf("read job %q: %w", id, err)
		}
		if err := addAge(&slow.rows, time.Now(), progress); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, progress)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, out.Close(), <-arrived)
	}
	return func() error { return errors.Join(stopListening(), out.Close(), <-arrived) }, nil
}

// loopback is a TCP connection of this process with itself.
func loopback() (out, in net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if out, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	if in, err = listener.Accept(); err != nil {
		out.Close()
	}
	return out, in, err
}

// readStates adds to ages how old each state is that arrives, a line each, until the connection ends.
func readStates(in net.Conn, ages *[]time.Duration) error {
	defer in.Close()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := addAge(ages, time.Now(), lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// addAge adds how old the state was at that time. It is JSON, and done in it is when it was written.
func addAge(ages *[]time.Duration, now time.Time, state string) error {
	var s struct{ Done int64 }
	if err := json.Unmarshal([]byte(state), &s); err != nil {
		return fmt.Errorf("state %q: %w", state, err)
	}
	*ages = append(*ages, now.Sub(time.UnixMicro(s.Done)))
	return nil
}
