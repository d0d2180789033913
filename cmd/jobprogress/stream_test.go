package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"

	"jobprogress/internal/pgtest"
)

func TestStreamToTheByte(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		st := s.open(streamOf(id))
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", "Content-Encoding": "",
		} {
			if got := st.response.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		var lastID string
		expect := func(want string) {
			t.Helper()
			got := st.next()
			if !regexp.MustCompile(`\A` + want + `\z`).MatchString(got) {
				t.Fatalf("got\n%s\nwant\n%s", got, want)
			}
			lastID = eventID(got)
		}
		expect(`retry: [12]\d{3}\nid: \S+\ndata: \{"type":"progress","done":0,"total":10,"succeeded":0,"failed":0\}`)
		expect(`id: \S+\ndata: \{"type":"status","status":"running"\}`)
		if got := st.next(); got != ": ping" {
			t.Errorf("after the first batch comes %q", got)
		}
		s.progress(id, 5)
		expect(`id: \S+\ndata: \{"type":"progress","done":5,"total":10,"succeeded":5,"failed":0\}`)
		s.exec(`select jobprogress.item($1, 's1', 'song', 'in_progress', 'Artist – Title')`, id)
		expect(`id: \S+\ndata: \{"type":"item","itemId":"s1","itemKind":"song","status":"in_progress","label":"Artist – Title"\}`)

		// Another viewer comes back with that id and receives only what is new.
		back := s.open(streamOf(id), "Last-Event-ID: "+lastID)
		inURL := s.open(streamOf(id) + "?lastEventId=" + lastID)

		s.exec(`update job set status = 'failed', error = 'no "more"', progress = '{"total": 10, "done": 6, "succeeded": 5, "failed": 1}' where id = $1`, id)
		expect(`id: \S+\ndata: \{"type":"progress","done":6,"total":10,"succeeded":5,"failed":1\}`)
		expect(`id: \S+\ndata: \{"type":"error","message":"no \\"more\\""\}`)
		expect(`id: \S+\ndata: \{"type":"status","status":"failed"\}`)
		st.ends()
		for _, b := range []*stream{back, inURL} {
			if got := b.next(); !strings.HasPrefix(got, "retry: ") || strings.Contains(got, "data:") {
				t.Errorf("who comes back receives %q first", got)
			}
			if got := b.next(); !strings.Contains(got, doneEvent(6)) {
				t.Errorf("who comes back receives %q then", got)
			}
			b.ends()
		}

		if response, body := s.get(streamOf(id), "Last-Event-ID: "+lastID); response.StatusCode != http.StatusNoContent || body != "" {
			t.Errorf("coming back after the end: %s %q, want 204", response.Status, body)
		}
		again := s.open(streamOf(id), "Last-Event-ID: another")
		again.until(`"status":"failed"`)
		again.ends()

		s.exec(`update job set status = 'running', error = null, progress = '{"total": 10}' where id = $1`, id)
		restarted := s.open(streamOf(id), "Last-Event-ID: "+lastID)
		restarted.until(`"status":"running"`)
	})
}

func TestIndependentClientReadsAWholeJob(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		request := s.request(streamOf(id)).WithContext(ctx)
		client := sse.Client{HTTPClient: s.client}
		connection := client.NewConnection(request)
		var done []float64
		final := false
		connection.SubscribeMessages(func(e sse.Event) {
			var event map[string]any
			if err := json.Unmarshal([]byte(e.Data), &event); err != nil {
				t.Errorf("event %q: %v", e.Data, err)
			}
			switch event["type"] {
			case "progress":
				done = append(done, event["done"].(float64))
				if next := int(event["done"].(float64)) + 1; next <= 10 {
					s.progress(id, next)
				} else {
					s.exec(`update job set status = 'completed' where id = $1`, id)
				}
			case "status":
				final = event["status"] == "completed"
			}
		})
		// After the end it comes back by itself, receives 204 and stops.
		if err := connection.Connect(); ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "204") {
			t.Errorf("the client ends with %v", err)
		}
		if len(done) != 11 || !final {
			t.Errorf("the client saw %v, the end: %v", done, final)
		}
	})
}

func TestThousandViewersShareReadsAndEncodings(t *testing.T) {
	t.Parallel()
	_, url := pgtest.Own(t) // a transaction of somebody else's that ends meanwhile would have the row read again
	s := serveForTest(t, url, "--max-streams-per-account", "2000", "--backstop-interval", "1h")
	id := s.insert()
	const viewers = 1000
	streams := make([]*stream, viewers)
	var opened sync.WaitGroup
	for i := range streams {
		opened.Go(func() { streams[i] = s.open(streamOf(id)) })
	}
	opened.Wait()
	for _, st := range streams {
		st.until(`"status":"running"`)
	}
	for i := range 10 {
		s.progress(id, i+1)
		for _, st := range streams {
			st.until(doneEvent(i + 1))
		}
	}
	if reads, _ := strconv.Atoi(s.metric("jobprogress_read_seconds_count")); reads > 40 { // a few for the first, one or two a change
		t.Errorf("%d reads for %d viewers", reads, viewers)
	}
	for name, want := range map[string]string{
		"jobprogress_events_encoded_total": "12",
		"jobprogress_frames_written_total": "12000",
		"jobprogress_streams_open":         "1000",
	} {
		s.eventually(name+" "+want, func() bool { return s.metric(name) == want })
	}
}

func TestNamedEventsForPagesThatAsk(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		asked, plain := s.open(streamOf(id)+"?heartbeat=1"), s.open(streamOf(id))
		if got := asked.next(); !strings.HasSuffix(got, "event: heartbeat\ndata: {\"interval\":100}") {
			t.Errorf("at once comes %q", got)
		}
		asked.until("event: heartbeat")
		reachable := s.unreachable("listen")
		if got := asked.until("event: bus"); got != "event: bus\ndata: {\"state\":\"degraded\"}" {
			t.Errorf("the page is sent %q", got)
		}
		late := s.open(streamOf(id) + "?heartbeat=1")
		late.until("degraded")
		reachable()
		if got := asked.until("event: bus"); got != "event: bus\ndata: {\"state\":\"recovered\"}" {
			t.Errorf("the page is sent %q", got)
		}
		s.progress(id, 9)
		for got := plain.next(); !strings.Contains(got, doneEvent(9)); got = plain.next() {
			if strings.Contains(got, "event:") {
				t.Errorf("a page that did not ask is sent %q", got)
			}
		}
	}, "--ping-interval", "100ms")
}

func TestDeletedJobEndsTheStream(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		st := s.open(streamOf(id))
		st.until("running")
		s.exec(`delete from job where id = $1`, id)
		last := st.until(`{"type":"error","message":"job no longer exists"}`)
		st.ends()
		if response, _ := s.get(streamOf(id), "Last-Event-ID: "+eventID(last)); response.StatusCode != http.StatusNotFound {
			t.Errorf("coming back: %s, want 404", response.Status)
		}
	})
}

func TestJobGivenToAnotherAccountEndsTheStream(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		st := s.open(streamOf(id))
		st.until("running")
		s.exec(`update job set account_id = $2, progress = '{"total": 77}' where id = $1`, id, ben)
		st.ends()
		for len(st.blocks) > 0 {
			if b := <-st.blocks; strings.Contains(b, "77") {
				t.Errorf("the former owner is sent %q", b)
			}
		}
		if response, _ := s.get(streamOf(id)); response.StatusCode != http.StatusNotFound {
			t.Errorf("coming back: %s, want 404", response.Status)
		}
	})
}

func TestStreamEndsWhenTheTokenExpires(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *server) {
		id := s.insert()
		st := s.open(streamOf(id), "Authorization: Bearer "+token(t, ada, 5*time.Second))
		st.until("running")
		st.ends()
		s.eventually("counted", func() bool { return s.metric(`jobprogress_streams_ended_total{reason="expired"}`) == "1" })
		lasted, err := strconv.ParseFloat(s.metric("jobprogress_stream_duration_seconds_sum"), 64)
		if err != nil || lasted < 2 || lasted > 6 { // exp is in whole seconds
			t.Errorf("it lasted for %v s, %v", lasted, err)
		}
	})
}

func TestViewerThatDoesNotReadIsCutAndItsNeighbourIsNot(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "500ms")
	id := s.insert()
	neighbour := s.open(streamOf(id))
	conn, send := rawConnection(t, s)
	send("GET " + streamOf(id) + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token(t, ada, time.Hour) + "\r\n\r\n")
	defer conn.Close()
	s.eventually("both open", func() bool { return s.metric("jobprogress_streams_open") == "2" })
	// By the deadline of a write, or by the kernel, which then says that it has gone.
	cut := func() bool { return s.metric("jobprogress_streams_open") == "1" }
	for i := 0; !cut() && i < 1000; i++ {
		s.exec(`select jobprogress.item($1, i || repeat('x', 990), 'song', 'in_progress', count => $2) from generate_series(1, 256) as i`, id, i)
		for len(neighbour.blocks) > 0 {
			<-neighbour.blocks
		}
	}
	if !cut() {
		t.Error("the viewer that does not read was not cut off")
	}
	s.progress(id, 9)
	neighbour.until(doneEvent(9))
}

func TestNothingLeaks(t *testing.T) {
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	s.open(streamOf(id)).close()
	descriptors := func() int {
		entries, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	settled := func() bool { return s.metric("jobprogress_streams_open") == "0" }
	s.eventually("closed", settled)
	s.client.CloseIdleConnections()
	goroutines, files := runtime.NumGoroutine(), descriptors()
	for range 10 {
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				st := s.open(streamOf(id))
				st.until("running")
				st.close()
			})
		}
		all.Wait()
	}
	s.eventually("closed", settled)
	// A few come and go with the pools and with this client.
	s.eventually("back to the start", func() bool {
		s.client.CloseIdleConnections()
		return runtime.NumGoroutine() <= goroutines+5 && descriptors() <= files+5
	})
}
