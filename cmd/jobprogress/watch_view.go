package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"jobprogress/internal/job"
)

// plain prints a line for each event: for pipes and logs.
type plain struct {
	w      io.Writer
	labels map[string]string // of items, which may be said once only
}

func newPlain(w io.Writer) plain { return plain{w, make(map[string]string)} }

func (p plain) show(e event) {
	switch e.Type {
	case "progress":
		line := fmt.Sprintf("progress %d/%d", e.Done, e.Total)
		if e.Succeeded > 0 || e.Failed > 0 { // not all tables count them
			line += fmt.Sprintf(" succeeded %d failed %d", e.Succeeded, e.Failed)
		}
		fmt.Fprintln(p.w, strings.TrimRight(line+" "+printable(e.Progress.Message), " "))
	case "status":
		fmt.Fprintf(p.w, "status %s\n", printable(e.Status))
	case "error":
		if e.Message != "" { // else an earlier one is taken back
			fmt.Fprintf(p.w, "error %s\n", printable(e.Message))
		}
	case "item":
		if e.Label != "" {
			p.labels[e.ItemID] = e.Label
		}
		line := fmt.Sprintf("%s %s %s %s", printable(e.Kind), printable(e.ItemID), e.Status, printable(p.labels[e.ItemID]))
		fmt.Fprintln(p.w, strings.TrimRight(line, " "))
	}
}

func (p plain) close() {}

// printable keeps what comes from outside from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// bar draws the job as a live bar with the items in progress below it.
type bar struct {
	bar *mpb.Bar

	mu      sync.Mutex
	counts  job.Progress
	status  string
	message string
	current []event // items in progress, the newest last
}

// mostItems is how many of the items in progress are drawn.
const mostItems = 4

func newBar(drawn *mpb.Progress, id string) *bar {
	b := &bar{status: "connecting"}
	b.bar = drawn.AddBar(0,
		mpb.PrependDecorators(
			decor.Name(shortID(id)+" "),
			decor.Any(func(decor.Statistics) string { return b.text().status }, decor.WC{W: 11, C: decor.DindentRight}),
		),
		mpb.AppendDecorators(
			decor.CountersNoUnit("%d/%d"),
			decor.Any(func(decor.Statistics) string {
				if failed := b.text().counts.Failed; failed > 0 {
					return fmt.Sprintf(", %d failed", failed)
				}
				return ""
			}),
		),
		mpb.BarExtender(mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
			if message := b.text().counts.Message; message != "" {
				fmt.Fprintf(w, "  %s\n", printable(message))
			}
			for _, item := range b.text().current {
				fmt.Fprintf(w, "  %s %s\n", printable(item.Kind), printable(item.Label))
			}
			return nil
		}), false),
	)
	return b
}

// shortID is the beginning of a UUID, and all of another id.
func shortID(id string) string {
	if _, err := job.IDUUID.Parse(id); err == nil {
		return id[:8]
	}
	return printable(id)
}

// text copies what the decorators draw from.
func (b *bar) text() (t struct {
	counts  job.Progress
	status  string
	current []event
}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.counts, t.status, t.current = b.counts, b.status, append(t.current, b.current...)
	return t
}

func (b *bar) show(e event) {
	b.mu.Lock()
	switch e.Type {
	case "progress":
		b.counts = e.Progress
	case "status":
		b.status = printable(e.Status)
	case "error":
		b.message = e.Message
	case "item":
		b.item(e)
	}
	counts := b.counts
	b.mu.Unlock()
	b.bar.SetTotal(counts.Total, false)
	b.bar.SetCurrent(min(counts.Done, counts.Total))
}

func (b *bar) item(e event) {
	for i, item := range b.current {
		if item.ItemID == e.ItemID {
			b.current = append(b.current[:i], b.current[i+1:]...)
			break
		}
	}
	if e.Status == "in_progress" {
		b.current = append(b.current, e)
	}
	if len(b.current) > mostItems {
		b.current = b.current[1:]
	}
}

func (b *bar) close() {
	b.mu.Lock()
	b.current, b.counts.Message = nil, ""
	b.mu.Unlock()
	b.bar.Abort(false)
}
