package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobprogress/internal/pgtest"
)

// Viewers come and go in every way, jobs begin, end and vanish, and sessions are killed, for as long as SOAK says. Then all is
// back where it was: goroutines, descriptors, memory, places.
func TestSoak(t *testing.T) {
	length := 3 * time.Second
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SOAK: %v", err)
		}
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	second := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "2s", "--max-streams-per-account", "10000")
	k := &soak{server: s, token: token(t, ada, length+time.Hour), http2: second}
	for i := range k.jobs {
		k.jobs[i].Store(s.insert())
	}
	k.run(t, 2*time.Second) // what comes with the first streams, and stays
	before := k.settled(t, nil)
	k.streams.Store(0)
	k.run(t, length)
	after := k.settled(t, &before)
	t.Logf("%d streams; before and after: %v, %v", k.streams.Load(), before, after)
	if k.streams.Load() == 0 {
		t.Error("there were no streams")
	}
}

type soak struct {
	server  *server
	token   string
	http2   *http.Client
	jobs    [20]atomic.Value // ids
	streams atomic.Int64
}

// usage is what a process takes.
type usage struct {
	goroutines, files int
	heap              uint64 // bytes
}

// settled waits until no stream is open and, if there is something to compare with, no more is taken than then.
func (k *soak) settled(t *testing.T, before *usage) (now usage) {
	t.Helper()
	s := k.server
	s.eventually("closed", func() bool { return s.metric("jobprogress_streams_open") == "0" })
	s.eventually("back to the start", func() bool {
		s.client.CloseIdleConnections()
		k.http2.CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		runtime.GC()
		entries, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		now = usage{runtime.NumGoroutine(), len(entries), memory.HeapAlloc}
		// A few come and go with the pools and with these clients. Topics stay for a minute.
		return before == nil || now.goroutines <= before.goroutines+10 && now.files <= before.files+10 && now.heap <= 2*before.heap+8<<20
	})
	return now
}

func (k *soak) run(t *testing.T, length time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var working sync.WaitGroup
	for i := range 60 {
		random := rand.New(rand.NewPCG(uint64(i), 7))
		working.Go(func() {
			for ctx.Err() == nil {
				k.view(ctx, random)
				k.streams.Add(1)
			}
		})
	}
	for i := range 4 {
		random := rand.New(rand.NewPCG(uint64(i), 8))
		working.Go(func() {
			for ctx.Err() == nil {
				k.change(random)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	working.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, time.Second)
			k.server.db.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and application_name like 'jobprogress %' and random() < 0.5`)
		}
	})
	working.Wait()
}

// change has something happen to a job. Errors are the database's, whose sessions are killed.
func (k *soak) change(random *rand.Rand) {
	db, ctx := k.server.db, k.server.t.Context()
	slot := &k.jobs[random.IntN(len(k.jobs))]
	id := slot.Load()
	switch random.IntN(20) {
	case 0:
		db.Exec(ctx, `update job set status = 'completed' where id = $1`, id)
	case 1:
		db.Exec(ctx, `delete from job where id = $1`, id)
	case 2:
		db.Exec(ctx, `update job set status = 'running' where id = $1`, id)
	case 3, 4:
		var fresh string
		err := db.QueryRow(ctx, `insert into job (id, account_id, type, status, progress) values (gen_random_uuid(), $1, 'matching', 'running', '{"total": 10}') returning id`, ada).Scan(&fresh)
		if err == nil {
			slot.Store(fresh)
		}
	case 5, 6, 7, 8:
		db.Exec(ctx, `select jobprogress.item($1, 'i' || $2::int, 'song', 'in_progress', label => repeat('x', 150))`, id, random.IntN(300))
	default:
		db.Exec(ctx, `update job set progress = jsonb_build_object('total', 1000, 'done', $2::int) where id = $1`, id, random.IntN(1000))
	}
}

// view opens a stream and leaves it, in one of the ways that there are.
func (k *soak) view(ctx context.Context, random *rand.Rand) {
	path := streamOf(k.jobs[random.IntN(len(k.jobs))].Load().(string))
	if random.IntN(4) == 0 {
		path = "/api/jobs/progress"
	}
	patience := time.Duration(random.IntN(200)) * time.Millisecond
	if random.IntN(4) == 0 {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, k.server.url+path, nil)
		r.Header.Set("Authorization", "Bearer "+k.token)
		if response, err := k.http2.Do(r); err == nil {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		return
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(k.server.url, "http://"))
	if err != nil {
		return
	}
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, k.token)
	conn.SetReadDeadline(time.Now().Add(patience))
	switch random.IntN(6) {
	case 0: // it leaves at once
	case 1: // it does not read
		pause(ctx, patience)
	case 2: // it resets the connection
		conn.Read(make([]byte, 100))
		tcp.SetLinger(0)
	case 3: // it closes its half
		tcp.CloseWrite()
		io.Copy(io.Discard, conn)
	case 4: // it sends what nobody asked for
		conn.Write(make([]byte, 10_000))
		io.Copy(io.Discard, conn)
	default:
		io.Copy(io.Discard, conn)
	}
}
