package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// card is what was measured, in Markdown. slow or many is nil if it did not run.
func (b *bench) card(slow *slowness, many *measured) string {
	var t strings.Builder
	if len(b.subjects) > 0 {
		b.writeSubjects(&t)
	}
	if slow != nil {
		writeSlow(&t, slow)
	}
	if many != nil {
		writeMany(&t, many)
	}
	b.writeFaults(&t, slow, many)
	return t.String()
}

// writeSubjects writes the table of ratios.
func (b *bench) writeSubjects(t *strings.Builder) {
	most := writers[len(writers)-1]
	fmt.Fprintf(t, "Transactions a second of the case, divided by those of the case in the second column in the same round: medians of\n"+
		"%d interleaved rounds of %s. A baseline has its transactions a second instead, in brackets. Each transaction updates one of\n"+
		"%d jobs. Writers at full speed, fsync on, %d cores for everything.\n\n", b.rounds, b.time, jobs, runtime.NumCPU())
	t.WriteString("| case | divided by |")
	for _, n := range writers {
		fmt.Fprintf(t, " %d %s |", n, map[bool]string{true: "writer", false: "writers"}[n == 1])
	}
	t.WriteString(" behind p50, p99 | notifications/s | reads/s |\n|" + strings.Repeat("---|", len(writers)+5) + "\n")
	for _, s := range b.subjects {
		b.writeSubject(t, s, most)
	}
	fmt.Fprintf(t, "\nThe last three columns are with %d writers. Behind is from the update, before its commit, to the frame at the viewer. item() is\n"+
		"`jobprogress.item(job, 's1' … 's40', 'song', 'in_progress', label => 'Artist - Title')`, for the job that is updated; nothing()\n"+
		"takes the same, and does nothing.\n", most)
	b.writeSweeps(t, most)
	t.WriteString("\n")
}

// writeSweeps writes what the item log costs besides.
func (b *bench) writeSweeps(t *strings.Builder, most int) {
	var took, before, deleted []float64
	for _, s := range b.subjects {
		if m := s.measured[most]; m != nil {
			for _, one := range m.sweeps {
				took, before, deleted = append(took, one.ms), append(before, one.before), append(deleted, one.deleted)
			}
		}
	}
	if len(took) > 0 {
		fmt.Fprintf(t, "A sweep of the item log after a round takes %.0f ms, of %.0f rows of which it deletes %.0f (medians); it is not in the ratios.\n",
			median(took), median(before), median(deleted))
	}
}

func (b *bench) writeSubject(t *strings.Builder, s *subject, most int) {
	divisor := ""
	if s.base != nil {
		divisor = s.base.name
	}
	fmt.Fprintf(t, "| %s | %s |", s.name, divisor)
	for _, n := range writers {
		m := s.measured[n]
		switch {
		case m == nil:
			t.WriteString(" |")
		case s.base == nil:
			fmt.Fprintf(t, " (%.0f) |", median(m.commits))
		default:
			fmt.Fprintf(t, " %.2f |", median(ratios(m.commits, s.base.measured[n].commits)))
		}
	}
	m := s.measured[most]
	if s.database.watched > 0 {
		fmt.Fprintf(t, " %s, %s |", ms(quantile(m.behind, 0.5)), ms(quantile(m.behind, 0.99)))
	} else {
		t.WriteString(" |")
	}
	if s.database.serve {
		fmt.Fprintf(t, " %.0f | %.1f |\n", median(m.notifications), median(m.reads))
	} else {
		t.WriteString(" | |\n")
	}
}

// writeSlow writes the table of the slow work.
func writeSlow(t *strings.Builder, slow *slowness) {
	fmt.Fprintf(t, "Slow work, %d jobs with %d updates a second altogether, each way in a database of its own at the same time:\n\n", slowJobs, slowRate)
	t.WriteString("| from the update, before its commit, to | p50 | p99 | update → frame p50 divided by this p50 |\n|---|---|---|---|\n")
	frames := quantile(slow.frames, 0.5)
	for _, way := range []struct {
		name string
		ages []time.Duration
	}{
		{"the frame at the viewer, by way of the server", slow.frames},
		{"the notification at a bare LISTEN loop, with the state in its payload", slow.payloads},
		{"the row at a bare LISTEN loop that reads it by primary key", slow.rows},
		{"the same, sent on over TCP, at the other end", slow.sent},
	} {
		p50 := quantile(way.ages, 0.5)
		fmt.Fprintf(t, "| %s | %s | %s | %.2f |\n", way.name, ms(p50), ms(quantile(way.ages, 0.99)), frames.Seconds()/p50.Seconds())
	}
	t.WriteString("\n")
}

func writeMany(t *strings.Builder, many *measured) {
	fmt.Fprintf(t, "%d watched jobs, all of them changing, %d writers at full speed: the sessions of the server take %.1f %% of a processor of the\n"+
		"database; behind %s and %s (p50, p99).\n\n",
		manyJobs, writers[len(writers)-1], 100*median(many.processor), ms(quantile(many.behind, 0.5)), ms(quantile(many.behind, 0.99)))
}

// writeFaults writes what must be zero.
func (b *bench) writeFaults(t *strings.Builder, slow *slowness, many *measured) {
	inexact, failed := 0, 0
	for _, s := range b.subjects {
		for n, m := range s.measured {
			if m.inexact+m.failed != 0 {
				say("%s, %d writers: %d viewers inexact, %d failures", s.name, n, m.inexact, m.failed)
			}
			inexact, failed = inexact+m.inexact, failed+m.failed
		}
	}
	if slow != nil {
		inexact, failed = inexact+slow.inexact, failed+slow.failed
	}
	if many != nil {
		inexact, failed = inexact+many.inexact, failed+many.failed
	}
	fmt.Fprintf(t, "Viewers that did not show the last state and all items after a round: %d. Transactions or reads that failed, items that were\n"+
		"not kept, warnings: %d.\n", inexact, failed)
}

// ratios divides round by round, for each round has its own weather.
func ratios(values, by []float64) (ratios []float64) {
	for round := range values {
		ratios = append(ratios, values[round]/by[round])
	}
	return ratios
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1))]
}

// ms has two digits, or those before the point.
func ms(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2g ms", float64(d)/float64(time.Millisecond))
}
