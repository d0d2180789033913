package main

import (
	"fmt"
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"

	"jobprogress/internal/job"
)

// jobs shows the jobs of an account, each by a view of its own.
type jobs struct {
	newView func(id string) view
	views   map[string]view
	wait    func() // for what is drawn
}

// newJobs draws a bar for each job in a terminal, else prints a line for each event, which begins with the job.
func newJobs(w io.Writer, terminal bool) *jobs {
	j := &jobs{views: make(map[string]view), wait: func() {}}
	j.newView = func(id string) view { return newPlain(prefixed{w, shortID(id) + " "}) }
	if terminal {
		drawn := mpb.New(mpb.WithOutput(w), mpb.WithWidth(60))
		j.newView = func(id string) view { return newBar(drawn, id) }
		j.wait = drawn.Wait
	}
	return j
}

func (j *jobs) show(e event) {
	if e.JobID == "" {
		return // of a kind that this version does not know
	}
	v := j.views[e.JobID]
	if v != nil && (e.Type == "removed" || e.Type == "job") { // with job all is said again, after a reconnect
		v.close()
		delete(j.views, e.JobID)
		v = nil
	}
	if e.Type == "job" {
		v = j.newView(e.JobID)
		j.views[e.JobID] = v
		v.show(event{Type: "progress", Progress: e.Job.Progress})
		if e.Job.Error != "" {
			v.show(event{Type: "error", Progress: job.Progress{Message: e.Job.Error}})
		}
		v.show(event{Type: "status", Status: e.Job.Status})
		return
	}
	if v != nil {
		v.show(e)
	}
}

func (j *jobs) close() {
	for _, v := range j.views {
		v.close()
	}
	j.wait()
}

// oneBar is a bar in a terminal of its own.
type oneBar struct {
	*bar
	wait func()
}

func newOneBar(w *os.File, id string) oneBar {
	drawn := mpb.New(mpb.WithOutput(w), mpb.WithWidth(60))
	return oneBar{newBar(drawn, id), drawn.Wait}
}

func (b oneBar) close() {
	b.bar.close()
	b.wait()
	if b.message != "" {
		fmt.Fprintln(os.Stderr, printable(b.message))
	}
}

// prefixed begins each write, which is a line, with a prefix.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
