//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// viewers are many streams that one goroutine reads.
type viewers struct {
	epoll   int
	streams map[int]*stream
	done    chan struct{}
	wake    int // an eventfd that ends the reading

	mu        sync.Mutex
	started   int // streams that have shown something
	ended     error
	frames    int             // since begin
	latencies []time.Duration // since begin
}

// stream is one connection.
type stream struct {
	started bool
	rest    []byte // of what was read, and may be half a frame's beginning
}

// openTimeout bounds how long all streams may take to show something.
const openTimeout = 2 * time.Minute

// openViewers opens a stream for each request, from many loopback addresses, and returns when all have shown something.
func openViewers(address string, requests []request) (_ *viewers, err error) {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	v := &viewers{streams: make(map[int]*stream), done: make(chan struct{})}
	if v.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if v.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.EpollCtl(v.epoll, unix.EPOLL_CTL_ADD, v.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(v.wake)}); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	descriptors := make([]int, 0, len(requests))
	for i, r := range requests {
		fd, err := dial(target, i)
		if err != nil {
			return nil, fmt.Errorf("connect stream %d of %d: %w", i+1, len(requests), err)
		}
		v.streams[fd] = &stream{}
		descriptors = append(descriptors, fd)
		head := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n", r.path, address, r.token)
		if _, err := unix.Write(fd, []byte(head)); err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
	}
	for _, fd := range descriptors {
		if err := unix.EpollCtl(v.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, fmt.Errorf("epoll: %w", err)
		}
	}
	go v.read()
	for end := time.Now().Add(openTimeout); ; time.Sleep(10 * time.Millisecond) {
		v.mu.Lock()
		started, ended := v.started, v.ended
		v.mu.Unlock()
		switch {
		case ended != nil:
			v.close()
			return nil, ended
		case started == len(requests):
			return v, nil
		case time.Now().After(end):
			v.close()
			return nil, fmt.Errorf("%d of %d streams have shown something", started, len(requests))
		}
	}
}

// dial connects to the target from one of 200 loopback addresses: each has its own ports.
func dial(target netip.AddrPort, i int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + i%200)}}); err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()}); err != nil {
		return 0, err
	}
	return fd, unix.SetNonblock(fd, true)
}

var (
	frameStart = []byte("\ndata: {\"type\":")
	momentKeys = [][]byte{[]byte(`"done":`), []byte(`"count":`)}
)

// read reads what comes until close is called.
func (v *viewers) read() {
	defer close(v.done)
	events := make([]unix.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(v.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		for _, event := range events[:max(n, 0)] {
			if int(event.Fd) == v.wake {
				return
			}
			s := v.streams[int(event.Fd)]
			kept := copy(buffer, s.rest)
			n, err := unix.Read(int(event.Fd), buffer[kept:])
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			if n <= 0 {
				v.mu.Lock()
				v.ended = errors.New("a stream ended")
				v.mu.Unlock()
				unix.EpollCtl(v.epoll, unix.EPOLL_CTL_DEL, int(event.Fd), nil)
				continue
			}
			v.take(s, buffer[:kept+n])
		}
	}
}

// take counts what a stream was sent.
func (v *viewers) take(s *stream, text []byte) {
	now := time.Now()
	frames := bytes.Count(text, frameStart)
	v.mu.Lock()
	if frames > 0 && !s.started {
		s.started = true
		v.started++
	}
	v.frames += frames
	for _, key := range momentKeys {
		at := bytes.LastIndex(text, key)
		if at < 0 {
			continue
		}
		digits := text[at+len(key):]
		end := bytes.IndexAny(digits, ",}")
		if micros, err := strconv.ParseInt(string(digits[:max(end, 0)]), 10, 64); err == nil && micros > 1e12 {
			v.latencies = append(v.latencies, now.Sub(time.UnixMicro(micros)))
		}
	}
	v.mu.Unlock()
	// A frame may begin at the end of what was read. What is kept holds no whole beginning, so that none counts twice.
	rest := text[max(0, len(text)-len(frameStart)+1):]
	s.rest = append(s.rest[:0], rest...)
}

// begin forgets what was counted.
func (v *viewers) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frames, v.latencies = 0, nil
}

// end returns what was counted since begin.
func (v *viewers) end() (frames int, latencies []time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.frames, v.latencies
}

func (v *viewers) close() {
	unix.Write(v.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-v.done
	for fd := range v.streams {
		unix.Close(fd)
	}
	unix.Close(v.wake)
	unix.Close(v.epoll)
}
