package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// subject is a case: writers that run a script against a database, at full speed.
type subject struct {
	name        string
	database    *database // several subjects may share one
	script      string
	base        *subject // by whose commits a second ours are divided; nil: this is a baseline
	writers     []int    // how many write at a time, in one round after another
	items       bool     // the script calls jobprogress.item once in each transaction
	commitDelay bool     // with commit_delay set

	measured map[int]*measured // by writers
}

// measured is what the rounds of a subject gave. A slice of floats has one of each round.
type measured struct {
	commits, notifications, reads []float64 // a second
	processor                     []float64 // share of a processor that the server's sessions take of the database
	behind                        []time.Duration
	inexact                       int     // viewers that did not end at the last state
	failed                        int     // transactions, items and reads that failed, and warnings
	sweeps                        []sweep // one after each round
}

// sweep is one of the item log.
type sweep struct{ ms, before, deleted float64 }

// writers are the numbers of writers of the card.
var writers = []int{1, 8, 16}

// subjects are all cases that have a baseline, in the order of the card. Names have no comma, for -only.
func subjects() []*subject {
	none := &database{name: "none", jobs: jobs}
	plain := &database{name: "plain", jobs: jobs, attach: attachPlain, listen: "job"}
	nobody := &database{name: "nobody", jobs: jobs, attach: install("on"), serve: true}
	some := &database{name: "some", jobs: jobs, attach: install("on"), serve: true, watched: jobs / 10}
	all := &database{name: "all", jobs: jobs, attach: install("on"), serve: true, watched: jobs}
	ungated := &database{name: "ungated", jobs: jobs, attach: install("off"), serve: true}
	// Items have databases of their own: the reads of the row cases would look through their rows.
	itemsNobody := &database{name: "items_nobody", jobs: jobs, attach: installBesideNothing, serve: true}
	itemsAll := &database{name: "items_all", jobs: jobs, attach: install("on"), serve: true, watched: jobs}

	riverNone := &database{name: "river_none", river: true, jobs: jobs}
	riverNobody := &database{name: "river_nobody", river: true, jobs: jobs, attach: installRiver, serve: true}

	update, noItem, item := updateScript(jobs), itemScript(jobs, ""), itemScript(jobs, callItem)
	ends := []int{1, 16}
	most := []int{16}
	base := &subject{name: "update: no trigger", database: none, script: update, writers: writers}
	nobodyBase := &subject{name: "begin-update-end: attached and nobody watches", database: itemsNobody, script: noItem, writers: ends}
	allBase := &subject{name: "begin-update-end: attached and all watched", database: itemsAll, script: noItem, writers: ends}
	riverBase := &subject{name: "update of river_job: no trigger", database: riverNone, script: riverScript(jobs), writers: ends}
	delayBase := &subject{name: "update: no trigger and commit_delay 5 ms", database: none, script: update, writers: most, commitDelay: true}
	return []*subject{
		base,
		{name: "update: plain NOTIFY trigger", database: plain, script: update, base: base, writers: writers},
		{name: "update: attached and nobody watches", database: nobody, script: update, base: base, writers: writers},
		{name: "update: attached and 10 % watched", database: some, script: update, base: base, writers: writers},
		{name: "update: attached and all watched", database: all, script: update, base: base, writers: writers},
		{name: "update: attached with gate off and nobody watches", database: ungated, script: update, base: base, writers: writers},
		riverBase,
		{name: "update of river_job: attached by preset and nobody watches", database: riverNobody, script: riverScript(jobs), base: riverBase, writers: ends},
		nobodyBase,
		{name: "begin-update-nothing()-end: attached and nobody watches", database: itemsNobody, script: itemScript(jobs, callNothing), base: nobodyBase, writers: ends},
		{name: "begin-update-item()-end: attached and nobody watches", database: itemsNobody, script: item, base: nobodyBase, writers: ends, items: true},
		allBase,
		{name: "begin-update-item()-end: attached and all watched", database: itemsAll, script: item, base: allBase, writers: ends, items: true},
		delayBase,
		{name: "update: attached and all watched and commit_delay 5 ms", database: all, script: update, base: delayBase, writers: most, commitDelay: true},
	}
}

// selection is the subjects that are wanted, and their baselines.
func selection(all []*subject, wanted func(name string) bool) (selected []*subject) {
	needed := make(map[*subject]bool)
	for _, s := range all {
		if wanted(s.name) {
			needed[s] = true
			needed[s.base] = true
		}
	}
	for _, s := range all {
		if needed[s] {
			selected = append(selected, s)
		}
	}
	return selected
}

// runSubjects runs the rounds of the subjects, interleaved.
func (b *bench) runSubjects(ctx context.Context) error {
	for _, s := range b.subjects {
		defer s.database.close() // also of what was prepared only in part
		if err := s.database.prepare(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, n := range writers {
		var present []*subject
		for _, s := range b.subjects {
			if slices.Contains(s.writers, n) {
				present = append(present, s)
			}
		}
		for round := range b.rounds {
			for _, s := range order(present, round) {
				if err := s.begin(ctx, b, n); err != nil {
					return fmt.Errorf("%s, %d writers: %w", s.name, n, err)
				}
			}
			for _, s := range present {
				say("%d writers, round %d of %d: %6.0f %s", n, round+1, b.rounds, s.measured[n].commits[round], s.name)
			}
		}
	}
	return nil
}

// order is the order of a round. No subject is always first, or always after the same one. Neighbours in the card often
// share a database, whose buckets may still be polled after a round: so every other one comes first, then the rest.
func order(subjects []*subject, round int) (ordered []*subject) {
	n := len(subjects)
	for i := range n {
		place := (round + i) % n
		if round%2 == 1 {
			place = (round + n - i) % n
		}
		if place *= 2; place >= n {
			place -= n - 1 + n%2 // the odd ones
		}
		ordered = append(ordered, subjects[place])
	}
	return ordered
}

// begin runs a round that is compared with others: it begins with all that is watched being notified.
func (s *subject) begin(ctx context.Context, b *bench, writers int) (err error) {
	if polled, err := s.database.service.calm(ctx); err != nil {
		return err
	} else if polled > 0 {
		say("%s: %g buckets are polled when the round begins", s.name, polled)
	}
	if s.commitDelay {
		if err := b.setCommitDelay(ctx, 5000); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = b.setCommitDelay(ctx, 0)
			}
		}()
	}
	return s.round(ctx, b, writers)
}

// setCommitDelay sets commit_delay, in microseconds, for all sessions, those of our servers too. Writers wait for it
// only if commit_siblings (5) others have a transaction open.
func (b *bench) setCommitDelay(ctx context.Context, delay int) error {
	if err := execute(ctx, b.server.URL, fmt.Sprintf("alter system set commit_delay = %d; select pg_reload_conf()", delay)); err != nil {
		return err
	}
	for end := time.Now().Add(exactTimeout); ; time.Sleep(10 * time.Millisecond) {
		var present string
		if err := queryValue(ctx, b.server.URL, "select setting from pg_settings where name = 'commit_delay'", &present); err != nil {
			return err
		}
		if present == fmt.Sprint(delay) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("commit_delay is %s and not %d", present, delay)
		}
	}
}
