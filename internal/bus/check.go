package bus

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"jobprogress/internal/store"
)

// checkInterval is between two looks at what stands in the way of jobs being shown.
const checkInterval = 50 * time.Second

// checkTimeout bounds one look.
const checkTimeout = 20 * time.Second

// checker looks for what stands in the way, as the command check does, and logs what is new. It has a session of its own
// for each look, so that no read waits for it.
type checker struct {
	config   Config
	findings *prometheus.GaugeVec
	found    map[string]store.Finding // the last time, by what was found
	failed   rate.Sometimes
}

func (c *checker) run(ctx context.Context) {
	c.failed.Interval = 10 * time.Minute
	for ctx.Err() == nil {
		status, changed := c.config.Hub.Status()
		if !status.Live { // then that is what stands in the way, and is logged
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		findings, err := c.look(ctx)
		switch {
		case err == nil:
			c.report(findings)
		case ctx.Err() == nil:
			c.failed.Do(func() { c.config.Log.Warn("not checked what stands in the way", "error", err) })
		}
		sleep(ctx, jitter(checkInterval))
	}
}

func (c *checker) look(ctx context.Context) ([]store.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := store.Connect(ctx, c.config.URL(), "jobprogress check")
	if err != nil {
		return nil, err
	}
	defer closeSession(ctx, conn)
	if err := store.Prepare(ctx, conn); err != nil {
		return nil, err
	}
	_, findings, err := store.Check(ctx, conn, store.Roles{})
	return findings, err
}

// report logs what was not found the last time, and what is not found any more.
func (c *checker) report(findings []store.Finding) {
	c.findings.Reset()
	found := make(map[string]store.Finding)
	for _, f := range findings {
		c.findings.WithLabelValues(f.Code).Inc()
		key := f.Code + " " + f.What
		found[key] = f
		switch _, known := c.found[key]; {
		case known:
		case f.Fault:
			c.config.Log.Warn("fault found", "code", f.Code, "what", f.What, "advice", f.Advice)
		default:
			c.config.Log.Info("note", "code", f.Code, "what", f.What, "advice", f.Advice)
		}
	}
	for key, f := range c.found {
		if _, still := found[key]; !still {
			c.config.Log.Info("mended", "code", f.Code, "what", f.What)
		}
	}
	c.found = found
}
