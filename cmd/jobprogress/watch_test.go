package main

import (
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"jobprogress/internal/pgtest"
)

func TestSimulateAndWatch(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	simulated := make(chan string, 1)
	go func() {
		out, err := output(t, noEnv, "simulate", "--database-url", s.db.Config().ConnString(), "--count", "10", "--parallel", "5",
			"--items", "30", "--rate", "20", "--failure-rate", "0")
		if err != nil {
			t.Error(err)
		}
		simulated <- out
	}()
	var id string
	s.eventually("begun", func() bool {
		return s.db.QueryRow(t.Context(), `select id::text from job where status = 'running' limit 1`).Scan(&id) == nil
	})
	watched, err := output(t, noEnv, "watch", id, "--url", s.url, "--token", token(t, ada, time.Hour))
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{`progress \d+/\d+ succeeded \d+ failed 0`, `in_progress .`, `status completed\n\z`} {
		if !regexp.MustCompile(want).MatchString(watched) {
			t.Errorf("watch does not say %s:\n%s", want, watched)
		}
	}
	out := <-simulated
	if strings.Count(out, "\n") != 10 {
		t.Errorf("simulate says\n%s", out)
	}
	var types, ended int
	err = s.db.QueryRow(t.Context(), `select count(distinct type), count(*) filter (where status in ('completed', 'failed') and completed_at is not null
		and (progress->>'done')::int = (progress->>'succeeded')::int + (progress->>'failed')::int) from job`).Scan(&types, &ended)
	if err != nil || types != 5 || ended != 10 {
		t.Errorf("%d types, %d jobs ended, %v", types, ended, err)
	}

	out, err = output(t, noEnv, "simulate", "--database-url", s.db.Config().ConnString(), "--count", "1", "--rate", "100", "--failure-rate", "1")
	if err != nil || !strings.HasSuffix(out, " failed\n") {
		t.Errorf("simulate says %q, %v", out, err)
	}
	id, _, _ = strings.Cut(out, " ")
	watched, err = output(t, noEnv, "watch", id, "--url", s.url, "--token", token(t, ada, time.Hour))
	if err == nil || !strings.Contains(err.Error(), "503 three times") || !strings.HasSuffix(watched, "status failed\n") {
		t.Errorf("watch ends with %v after\n%s", err, watched)
	}
}

func TestSimulateThatIsStoppedLeavesNoJobRunning(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	db := pgtest.Pool(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() {
		stopped <- run(ctx, []string{"simulate", "--database-url", url}, noEnv, io.Discard, io.Discard)
	}()
	count := func(condition string) (n int) {
		if err := db.QueryRow(t.Context(), `select count(*) from job where `+condition).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for end := time.Now().Add(deadline); count(`status = 'running'`) < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if left := count(`status in ('pending', 'running')`); left != 0 {
		t.Errorf("%d jobs left running", left)
	}
}

func TestWatchSaysWhyItCant(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	for want, args := range map[string][]string{
		"401":               {"watch", id, "--url", s.url},
		"no such job":       {"watch", "00000000-0000-4000-8000-000000000000", "--url", s.url, "--token", token(t, ada, time.Hour)},
		"UUID of 36":        {"watch", "x", "--url", s.url, "--token", token(t, ada, time.Hour)},
		"200 bytes":         {"watch", strings.Repeat("x", 201), "--url", s.url},
		"is not valid":      {"watch", id, "--url", s.url, "--token", "x"},
		"is not like https": {"watch", id, "--url", "here"},
	} {
		if _, err := output(t, noEnv, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

func TestBarNamesTheJob(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11": "5f0c3a52", "1": "1", "100000001": "100000001", "é": "é", "a\x1b[31mb": "a [31mb",
	} {
		if got := shortID(id); got != want {
			t.Errorf("%q is shown as %q", id, got)
		}
		newOneBar(os.Stdout, id).close()
	}
}
