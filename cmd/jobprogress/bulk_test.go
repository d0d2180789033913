package main

import (
	"fmt"
	"os"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"jobprogress/internal/pgtest"
)

// One statement updates many rows of which some are watched. The memory of the writer's backend and ours stays what it
// was, no session is replaced, and the viewers are right. No other test runs meanwhile: their memory is ours.
func TestBulkUpdate(t *testing.T) {
	rows, watched := 100_000, 200
	if os.Getenv("BULK") != "" { // the size of the promise
		rows, watched = 300_000, 500
	}
	_, url := pgtest.Own(t)
	s := serveForTest(t, url, "--max-streams-per-account", "1000", "--backstop-interval", "1h")
	s.exec(`insert into job (id, account_id, type, status, progress)
		select gen_random_uuid(), $1, 'matching', 'running', '{"total": 9}' from generate_series(1, $2)`, ada, rows)
	var streams []*stream
	for range watched {
		id := uuid.NewString()
		s.exec(`insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 9}')`, id, ada)
		streams = append(streams, s.open(streamOf(id)))
	}
	for _, st := range streams {
		st.until("running")
	}
	conn, err := s.db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	update := func(done int, silent string) time.Duration {
		start := time.Now()
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(`begin; %s; update job set progress = '{"total": 9, "done": %d}'; commit`, silent, done)); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	without := update(1, `alter table job disable trigger user`) // which lasts: the first backend's memory, too
	s.exec(`alter table job enable trigger user`)
	s.exec(`vacuum job`)
	backend := fmt.Sprint(conn.Conn().PgConn().PID())
	before := [2]int{anonymous(t, backend), objectMemory()}
	var peak [2]int
	updated, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		for {
			peak = [2]int{max(peak[0], anonymous(t, backend)), max(peak[1], objectMemory())}
			select {
			case <-updated:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	with := update(2, `select`)
	committed := time.Now()
	for _, st := range streams {
		st.until(doneEvent(2))
	}
	right := time.Since(committed)
	close(updated)
	<-sampled
	t.Logf("%d rows without triggers in %s, with %d watched in %s; viewers right %s after the commit; memory before %v kB, at most %v kB",
		rows, without.Round(time.Millisecond), watched, with.Round(time.Millisecond), right.Round(time.Millisecond), before, peak)
	for i, who := range []string{"the writer's backend", "the server"} {
		if grown := peak[i] - before[i]; grown > 50<<10 {
			t.Errorf("%s has grown by %d kB", who, grown)
		}
	}
	for _, session := range []string{"listen", "read"} {
		if n := s.metric(`jobprogress_bus_reconnects_total{session="` + session + `"}`); n != "0" {
			t.Errorf("the %s session was replaced %s times", session, n)
		}
	}
}

// objectMemory is what the objects of this process take, in kilobytes. Its memory as the system sees it is mostly the race
// detector's.
func objectMemory() (kilobytes int) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64() >> 10)
}

// anonymous is the memory of its own that a process has, in kilobytes; 0 where there is no /proc.
func anonymous(t *testing.T, pid string) (kilobytes int) {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Logf("no memory is measured: %v", err)
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			fmt.Sscan(rest, &kilobytes)
		}
	}
	return kilobytes
}
