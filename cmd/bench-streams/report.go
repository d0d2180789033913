//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// row is what one subject came to in one shape.
type row struct {
	shape, subject string
	result
}

// report is all that was measured; rows of the two subjects follow each other.
type report struct{ idle, busy, most []row }

const (
	beginMark = "<!-- make bench-streams writes from here -->\n"
	endMark   = "<!-- to here -->\n"
)

// write prints the tables, or writes them into the file and a chart beside it.
func (r report) write(b *bench, file string) error {
	if file == "" {
		fmt.Print(r.tables(b))
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(text, []byte(beginMark))
	_, after, closed := bytes.Cut(rest, []byte(endMark))
	if !found || !closed {
		return fmt.Errorf("%s has not both marks", file)
	}
	text = fmt.Appendf(nil, "%s%s%s%s%s", before, beginMark, r.tables(b), endMark, after)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(filepath.Dir(file), "streams.svg"), r.chart(), 0o644)
}

func (r report) tables(b *bench) string {
	var t strings.Builder
	fmt.Fprintf(&t, "Medians of %d interleaved rounds, %d processors for server, database and viewers, over loopback.\n\n", b.rounds, runtime.NumCPU())
	t.WriteString("| quiet streams | | bytes a stream | opened a second |\n|---|---|---|---|\n")
	for _, one := range r.idle {
		fmt.Fprintf(&t, "| %s | %s | %s | %s |\n", one.shape, one.subject, thousands(int(one.bytes)), thousands(int(one.opened)))
	}
	t.WriteString("\n| changes | | µs of CPU a frame | skipped | p50 | p99 |\n|---|---|---|---|---|---|\n")
	for _, one := range r.busy {
		fmt.Fprintf(&t, "| %s | %s | %.1f | %.1f %% | %.1f ms | %.1f ms |\n", one.shape, one.subject,
			one.cpu, 100*max(one.skipped, 0), one.p50.Seconds()*1000, one.p99.Seconds()*1000)
	}
	t.WriteString("\n| most frames a second | | frames/s | µs of CPU a frame | p99 |\n|---|---|---|---|---|\n")
	for _, one := range r.most {
		fmt.Fprintf(&t, "| %s | %s | %s | %.2f | %.0f ms |\n", one.shape, one.subject, thousands(int(one.frames)), one.cpu, one.p99.Seconds()*1000)
	}
	return t.String()
}

// chart draws what each subject takes, as bars relative to the handler.
func (r report) chart() []byte {
	type bar struct {
		name         string
		ours, theirs float64
		unit         string
	}
	var bars []bar
	for i := 0; i+1 < len(r.idle); i += 2 {
		bars = append(bars, bar{r.idle[i].shape, r.idle[i].bytes, r.idle[i+1].bytes, "bytes a stream"})
	}
	for i := 0; i+1 < len(r.busy); i += 2 {
		bars = append(bars, bar{r.busy[i].shape, r.busy[i].cpu, r.busy[i+1].cpu, "µs of CPU a frame"})
	}
	const width, label, line, top = 960, 390, 44, 40
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", width, top+line*len(bars)+10)
	s.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	fmt.Fprintf(&s, `<text x="%d" y="22" fill="#2563eb">jobprogress</text><text x="%d" y="22" fill="#6b7280">a minimal net/http handler</text>`+"\n", label, label+100)
	for i, b := range bars {
		y := top + i*line
		scale := (width - label - 190) / max(b.ours, b.theirs)
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end" fill="#111">%s</text>`+"\n", label-10, y+19, html.EscapeString(b.name))
		for j, value := range []float64{b.ours, b.theirs} {
			precision := 1
			if value >= 100 {
				precision = 0
			}
			fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="14" fill="%s"/><text x="%.1f" y="%d" fill="#374151" font-size="11">%s %s</text>`+"\n",
				label, y+j*16, max(value*scale, 1), []string{"#2563eb", "#d1d5db"}[j], label+max(value*scale, 1)+5, y+j*16+11,
				strconv.FormatFloat(value, 'f', precision, 64), b.unit)
		}
	}
	s.WriteString("</svg>\n")
	return []byte(s.String())
}

// thousands writes a number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
