//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
)

// topic is a job of the handler: its last frames, and a channel that is closed with the next.
type topic struct {
	mu      sync.Mutex
	frames  [kept][]byte
	total   int
	changed chan struct{}
}

// kept is how many frames a viewer may be behind without missing any.
const kept = 4096

// since appends the frames from that one on to the buffer.
func (t *topic) since(next int, buffer []byte) (_ []byte, total int, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for next = max(next, t.total-kept); next < t.total; next++ {
		buffer = append(buffer, t.frames[next%kept]...)
	}
	return buffer, t.total, t.changed
}

func (t *topic) add(done string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frames[t.total%kept] = fmt.Appendf(nil, "id: 0123456789ab-42\ndata: {\"type\":\"progress\",\"done\":%s,\"total\":9000000000000000,\"succeeded\":0,\"failed\":0}\n\n", done)
	t.total++
	close(t.changed)
	t.changed = make(chan struct{})
}

// serveHandler serves streams, each with a goroutine of net/http's, and changes a job on request.
func serveHandler(certificate string) {
	var mu sync.Mutex
	topics := make(map[string]*topic)
	find := func(name string) *topic {
		mu.Lock()
		defer mu.Unlock()
		t := topics[name]
		if t == nil {
			t = &topic{changed: make(chan struct{})}
			topics[name] = t
			t.add("0")
		}
		return t
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{job}", func(w http.ResponseWriter, r *http.Request) {
		times, _ := strconv.Atoi(r.FormValue("times"))
		for range times {
			find(r.PathValue("job")).add(r.FormValue("done"))
		}
	})
	mux.HandleFunc("POST /collect", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() })
	mux.HandleFunc("GET /{job}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		t := find(r.PathValue("job"))
		var buffer []byte
		var next int
		for {
			var changed <-chan struct{}
			buffer, next, changed = t.since(next, buffer[:0])
			if _, err := w.Write(buffer); err != nil || control.Flush() != nil {
				return
			}
			select {
			case <-changed:
			case <-r.Context().Done():
				return
			}
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("serving", listener.Addr())
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{}}
	if certificate != "" {
		err = server.ServeTLS(listener, certificate, certificate)
	} else {
		err = server.Serve(listener)
	}
	fmt.Fprintln(os.Stderr, err)
}
