package main

import (
	"context"
	"fmt"
	"time"
)

// usage is what a database and its server have done so far.
type usage struct {
	counts
	processor time.Duration
	kept      int64 // items
}

func (s *subject) usage(ctx context.Context) (u usage, err error) {
	d := s.database
	if u.counts, err = d.service.counts(ctx); err != nil {
		return u, err
	}
	if u.processor, err = d.processor(ctx); err != nil {
		return u, err
	}
	if s.items {
		// The sequence counts what was ever kept, whatever has been swept since.
		err = d.admin.QueryRow(ctx, `select coalesce(last_value, 0) from pg_sequences
			where schemaname = 'jobprogress' and sequencename = 'item_log_seq_seq'`).Scan(&u.kept)
	}
	return u, err
}

// round measures once with so many writers.
func (s *subject) round(ctx context.Context, b *bench, writers int) error {
	d := s.database
	before, err := s.usage(ctx)
	if err != nil {
		return err
	}
	d.audience.begin()
	start := time.Now()
	result, err := b.runPgbench(ctx, d.url, s.script, "-c", fmt.Sprint(writers), "-j", "1", "-T", fmt.Sprint(int(b.time.Seconds())))
	if err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	after, err := s.usage(ctx)
	if err != nil {
		return err
	}
	inexact, err := d.exact(ctx, s.items)
	if err != nil {
		return err
	}
	last, err := d.service.counts(ctx) // with the reads after the last update
	if err != nil {
		return err
	}
	m := s.at(writers)
	m.commits = append(m.commits, result.commits)
	m.notifications = append(m.notifications, (after.notifications-before.notifications)/took)
	m.reads = append(m.reads, (after.reads-before.reads)/took)
	m.processor = append(m.processor, (after.processor-before.processor).Seconds()/took)
	m.behind = append(m.behind, d.audience.end()...)
	m.inexact += inexact
	m.failed += result.failed + int(last.failed-before.failed)
	if s.items {
		m.failed += result.transactions - int(after.kept-before.kept)
	}
	return s.tidy(ctx, m)
}

// at is what was measured with so many writers.
func (s *subject) at(writers int) *measured {
	if s.measured == nil {
		s.measured = make(map[int]*measured)
	}
	if s.measured[writers] == nil {
		s.measured[writers] = new(measured)
	}
	return s.measured[writers]
}

// tidy does what the round left to do, in items, dead rows and on the way to the disk. It must not fall to the next
// subject.
func (s *subject) tidy(ctx context.Context, m *measured) error {
	if !s.items {
		return execute(ctx, s.database.url, "vacuum "+s.database.table()+"; checkpoint")
	}
	var one sweep
	admin := s.database.admin
	if err := admin.QueryRow(ctx, "select count(*) from jobprogress.item_log").Scan(&one.before); err != nil {
		return err
	}
	start := time.Now()
	if err := admin.QueryRow(ctx, "with recursive s as (select * from jobprogress.sweep() union all select n.* from s, lateral jobprogress.sweep(s.next) as n where s.next is not null) select sum(deleted)::float8 from s").Scan(&one.deleted); err != nil {
		return err
	}
	one.ms = float64(time.Since(start).Microseconds()) / 1000
	m.sweeps = append(m.sweeps, one)
	return execute(ctx, s.database.url, "vacuum job; vacuum jobprogress.item_log; checkpoint")
}
