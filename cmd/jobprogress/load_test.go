package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jobprogress/internal/pgtest"
)

// stall opens a stream, and leaves it to the caller to read it or not. Its buffer is as small as it gets.
func (s *server) stall(id string) net.Conn {
	s.t.Helper()
	conn, send := rawConnection(s.t, s)
	conn.(*net.TCPConn).SetReadBuffer(1)
	send("GET " + streamOf(id) + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token(s.t, ada, time.Hour) + "\r\n\r\n")
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// flood updates the job with as much text as viewers are shown, until it is sent to stop; then it says how often.
func (s *server) flood(id string) (stop func() int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	updates := make(chan int)
	go func() {
		for n := 1; ; n++ {
			_, err := s.db.Exec(ctx, `update job set error = $2::int || repeat('x', 900), progress = jsonb_build_object('total', 1000000, 'done', $2::int) where id = $1`, id, n)
			if ctx.Err() != nil {
				updates <- n
				return
			}
			if err != nil {
				s.t.Error(err)
			}
		}
	}()
	return sync.OnceValue(func() int {
		cancel()
		return <-updates
	})
}

// latencies are the times from an update of the job to its frame, sorted.
func (s *server) latencies(st *stream, id string, n int) []time.Duration {
	s.t.Helper()
	var all []time.Duration
	for i := range n {
		start := time.Now()
		s.progress(id, i%10)
		st.until(doneEvent(i % 10))
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

func TestHundredStalledViewersCostTheirNeighboursNothing(t *testing.T) {
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "30s", "--max-streams-per-account", "1000")
	flooded, quiet := s.insert(), s.insert()
	same, other := s.open(streamOf(flooded)), s.open(streamOf(quiet))
	go func() { // the one beside them reads on
		for {
			select {
			case <-same.blocks:
			case <-same.ended:
				return
			}
		}
	}()
	stop := s.flood(flooded)
	t.Cleanup(func() { stop() })
	const samples = 200
	alone := s.latencies(other, quiet, samples)
	before := heap()

	const stalled = 100
	for range stalled {
		s.stall(flooded)
	}
	s.eventually("open", func() bool { return s.metric("jobprogress_streams_open") == strconv.Itoa(2+stalled) })
	among := s.latencies(other, quiet, samples)
	grown := (heap() - before) / stalled
	t.Logf("p99 of a neighbour: %s with no viewer stalled, %s with %d; each of them takes %.0f kB",
		alone[samples*99/100], among[samples*99/100], stalled, grown/1000)
	if grown > 100_000 {
		t.Errorf("a stalled viewer takes %.0f bytes", grown)
	}
	stop()
	s.exec(`update job set status = 'completed' where id = $1`, flooded)
	same.ends()
}

func TestViewerAtOneByteASecondIsCut(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "500ms")
	id := s.insert()
	conn := s.stall(id)
	s.eventually("open", func() bool { return s.metric("jobprogress_streams_open") == "1" })
	stop := s.flood(id)
	defer stop()
	one := make([]byte, 1)
	for end := time.Now().Add(deadline); s.metric("jobprogress_streams_open") == "1"; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatal("the stream is still open")
		}
		conn.Read(one)
	}
	if reason := s.metric(`jobprogress_streams_ended_total{reason="client"}`) + s.metric(`jobprogress_streams_ended_total{reason="stalled"}`); !strings.Contains(reason, "1") {
		t.Error("it ended for another reason")
	}
}

// It has its say and closes its half: it is taken to be gone.
func TestHalfClosedViewerEnds(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	conn := s.stall(s.insert())
	s.eventually("open", func() bool { return s.metric("jobprogress_streams_open") == "1" })
	conn.(*net.TCPConn).CloseWrite()
	s.eventually("ended", func() bool { return s.metric(`jobprogress_streams_ended_total{reason="client"}`) == "1" })
}

// What was sent is acknowledged by nobody, or taken by nobody, and there is no more to say: no deadline of a write passes.
func TestViewerGoneWithoutAWordIsGivenUp(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can be asked for that")
	}
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "1s")
	id := s.insert()
	s.stall(id)
	s.eventually("open", func() bool { return s.metric("jobprogress_streams_open") == "1" })
	s.exec(`select jobprogress.item($1, i || repeat('x', 900), 'song', 'queued') from generate_series(1, 40) as i`, id)
	s.eventually("given up", func() bool { return s.metric(`jobprogress_streams_ended_total{reason="client"}`) == "1" })
}

func TestHerdComesBackSpreadOut(t *testing.T) {
	t.Parallel()
	const herd, jobs = 2000, 100
	s := serveForTest(t, pgtest.New(t), "--max-streams-per-account", strconv.Itoa(herd))
	var ids []string
	for range jobs {
		ids = append(ids, s.insert())
	}
	reachable := s.unreachable("listen", "read")
	s.degraded()
	all := func(do func(id string)) {
		var working sync.WaitGroup
		for i := range herd {
			working.Go(func() { do(ids[i%jobs]) })
		}
		working.Wait()
	}
	var mu sync.Mutex
	var seconds [70]int
	s.client.Transport.(*http.Transport).MaxIdleConnsPerHost = herd
	all(func(id string) {
		response, body := s.get(streamOf(id), "Accept: text/event-stream")
		var ms int
		if _, err := fmt.Sscanf(body, "retry: %d", &ms); err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("answer %s %q", response.Status, body)
		}
		mu.Lock()
		defer mu.Unlock()
		seconds[ms/1000]++
	})
	most, last := 0, 0
	for second, n := range seconds {
		if most = max(most, n); n > 0 {
			last = second
		}
	}
	t.Logf("of %d turned away, %d come back in the fullest second, and the last after %d s", herd, most, last)
	// They are sent while they come: the first ones don't know yet how many there will be.
	if most > herd/2 || last < 8 {
		t.Errorf("they come back at once: %v", seconds)
	}

	reachable()
	s.ready()
	before := s.metric("jobprogress_read_seconds_count")
	all(func(id string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		response, err := s.client.Do(s.request(streamOf(id)).WithContext(ctx))
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		first := make([]byte, 10)
		if _, err := io.ReadFull(response.Body, first); err != nil || string(first[:6]) != "retry:" {
			t.Errorf("%s %q, %v", response.Status, first, err)
		}
	})
	t.Logf("reads for %d streams of %d jobs at once: %s before, %s after", herd, jobs, before, s.metric("jobprogress_read_seconds_count"))
	from, _ := strconv.Atoi(before)
	to, _ := strconv.Atoi(s.metric("jobprogress_read_seconds_count"))
	if to-from > jobs { // one after another, and never one for each stream
		t.Errorf("%d reads", to-from)
	}
}
