package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// card is the table of what was measured, in Markdown.
func (b *bench) card(slow slowness, many *measured) string {
	var t strings.Builder
	fmt.Fprintf(&t, "Commits a second as a ratio to no trigger in the same round, medians of %d interleaved rounds of %s: %d jobs, writers at\nfull speed, fsync on, %d cores for everything.\n\n",
		b.rounds, b.time, jobs, runtime.NumCPU())
	t.WriteString("| |")
	for _, n := range writers {
		fmt.Fprintf(&t, " %d %s |", n, map[bool]string{true: "writer", false: "writers"}[n == 1])
	}
	t.WriteString(" behind p50, p99 | notices/s | reads/s |\n|---|")
	t.WriteString(strings.Repeat("---|", len(writers)+3) + "\n")
	most := writers[len(writers)-1]
	for _, s := range b.subjects {
		fmt.Fprintf(&t, "| %s |", s.name)
		for _, n := range writers {
			none := b.subjects[0].measured[n].commits
			if s == b.subjects[0] {
				fmt.Fprintf(&t, " 1 (%.0f) |", median(none))
				continue
			}
			ratios := slices.Clone(s.measured[n].commits)
			for round := range ratios { // of which each has its own weather
				ratios[round] /= none[round]
			}
			fmt.Fprintf(&t, " %.2f |", median(ratios))
		}
		m := s.measured[most]
		switch {
		case s.watched > 0:
			fmt.Fprintf(&t, " %s, %s |", ms(quantile(m.behind, 0.5)), ms(quantile(m.behind, 0.99)))
		default:
			t.WriteString(" |")
		}
		if s.serve {
			fmt.Fprintf(&t, " %.0f | %.1f |\n", median(m.notices), median(m.reads))
		} else {
			t.WriteString(" | |\n")
		}
	}
	t.WriteString("\n")
	inexact := 0
	for _, s := range b.subjects {
		for _, m := range s.measured {
			inexact += m.inexact
		}
	}
	fmt.Fprintf(&t, "The right half is with %d writers. Behind is from the update, before its commit, to the frame at the viewer. Viewers that did not\nshow the last state after a round: %d.\n\n", most, inexact)
	frames, bare := quantile(slow.frames, 0.5), quantile(slow.bare, 0.5)
	fmt.Fprintf(&t, "Slow work, %d jobs with %d updates a second altogether: %s from the update to the frame at the median, %s for 99 of 100; to a\nbare LISTEN loop beside it %s and %s, which is %.2f.\n",
		slowJobs, slowRate, ms(frames), ms(quantile(slow.frames, 0.99)), ms(bare), ms(quantile(slow.bare, 0.99)), frames.Seconds()/bare.Seconds())
	fmt.Fprintf(&t, "\n%d watched jobs, all of them changing, %d writers at full speed: the sessions of the server take %.1f %% of a processor of the\ndatabase; behind %s and %s.\n",
		manyJobs, most, 100*median(many.processor), ms(quantile(many.behind, 0.5)), ms(quantile(many.behind, 0.99)))
	return t.String()
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
