//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
)

// topic is a job of the handler: its last frame, and a channel that is closed with the next.
type topic struct {
	mu      sync.Mutex
	frame   []byte
	changed chan struct{}
}

func (t *topic) now() ([]byte, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.frame, t.changed
}

func (t *topic) set(done string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frame = fmt.Appendf(nil, "id: 0123456789ab-42\ndata: {\"type\":\"progress\",\"done\":%s,\"total\":9000000000000000,\"succeeded\":0,\"failed\":0}\n\n", done)
	close(t.changed)
	t.changed = make(chan struct{})
}

// serveHandler serves streams, each with a goroutine of net/http's, and changes a job when it is told to.
func serveHandler() {
	var mu sync.Mutex
	topics := make(map[string]*topic)
	find := func(name string) *topic {
		mu.Lock()
		defer mu.Unlock()
		t := topics[name]
		if t == nil {
			t = &topic{changed: make(chan struct{})}
			topics[name] = t
			t.set("0")
		}
		return t
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{job}", func(w http.ResponseWriter, r *http.Request) { find(r.PathValue("job")).set(r.FormValue("done")) })
	mux.HandleFunc("GET /{job}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		t := find(r.PathValue("job"))
		for {
			frame, changed := t.now()
			if _, err := w.Write(frame); err != nil || control.Flush() != nil {
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
	fmt.Fprintln(os.Stderr, http.Serve(listener, mux))
}
