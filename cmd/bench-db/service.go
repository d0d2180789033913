package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// service is a server of ours, in a process of its own.
type service struct {
	url, admin string
	process    *exec.Cmd
}

var serving = regexp.MustCompile(`msg=serving addr=(\S+) admin=(\S+)`)

// startService starts one and waits until it is ready.
func startService(program, databaseURL string) (*service, error) {
	s := &service{process: exec.Command(program, "serve", "--database-url", databaseURL, "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
		"--insecure-no-auth", "--max-streams-per-account", "100000")}
	s.process.Env = []string{"PATH=" + os.Getenv("PATH")}
	log, err := s.process.StderrPipe()
	if err != nil {
		return nil, err
	}
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if found := serving.FindStringSubmatch(lines.Text()); found != nil {
			s.url, s.admin = found[1], found[2]
			break
		}
	}
	go io.Copy(io.Discard, log)
	for end := time.Now().Add(exactTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(s.url + "/readyz")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("the server is not ready in time")
}

func (s *service) stop() {
	s.process.Process.Kill()
	s.process.Wait()
}

// calmTimeout is longer than a bucket is polled that has become slow.
const calmTimeout = time.Minute

// calm waits until no bucket is polled any more, and returns how many still are.
func (s *service) calm(ctx context.Context) (polled float64, err error) {
	for end := time.Now().Add(calmTimeout); ; time.Sleep(100 * time.Millisecond) {
		c, err := s.counts(ctx)
		if err != nil || c.polled == 0 || time.Now().After(end) {
			return c.polled, err
		}
	}
}

// counts are of a server's metrics: since its start, but polled, which is at present.
type counts struct {
	notifications float64 // without probes
	reads, failed float64
	polled        float64 // buckets
}

// counts asks the server for its metrics. Without a server all are 0.
func (s *service) counts(ctx context.Context) (c counts, err error) {
	if s == nil {
		return c, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.admin+"/metrics", nil)
	if err != nil {
		return c, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return c, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return c, err
	}
	// A metric that was renamed must not look like one that is 0.
	for _, name := range []string{"jobprogress_notifications_total", "jobprogress_buckets", "jobprogress_read_seconds", "jobprogress_reads_failed_total"} {
		if families[name] == nil {
			return c, fmt.Errorf("the server has no metric %s", name)
		}
	}
	for _, m := range families["jobprogress_notifications_total"].GetMetric() {
		if m.GetLabel()[0].GetValue() != "probe" {
			c.notifications += m.GetCounter().GetValue()
		}
	}
	for _, m := range families["jobprogress_buckets"].GetMetric() {
		if m.GetLabel()[0].GetValue() == "polled" {
			c.polled += m.GetGauge().GetValue()
		}
	}
	for _, m := range families["jobprogress_read_seconds"].GetMetric() {
		c.reads += float64(m.GetHistogram().GetSampleCount())
	}
	for _, m := range families["jobprogress_reads_failed_total"].GetMetric() {
		c.failed += m.GetCounter().GetValue()
	}
	return c, nil
}
