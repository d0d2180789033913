package stream

import (
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller reports to a loop what happens at its sockets. It is an epoll instance (epoll(7)), which Go's own poller waits for: no
// thread sleeps in the kernel for it. Events are edges: each is reported once.
type poller struct {
	fd      int
	file    *os.File // fd as Go's poller knows it
	done    chan struct{}
	sockets []*socket // by descriptor
	uses    int32
}

// mostEvents is how many events are fetched at once.
const mostEvents = 256

// startPoller has events come to the loop from now on.
func (l *loop) startPoller() error {
	if l.poller != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os.NewFile has Go's poller wait for it
		unix.Close(fd)
		return fmt.Errorf("epoll: %w", err)
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return fmt.Errorf("epoll: %w", err)
	}
	l.poller = &poller{fd: fd, file: file, done: make(chan struct{})}
	go l.poll(raw, l.poller.done)
	return nil
}

// close closes the sockets that linger, and ends the poller.
func (p *poller) close() {
	for _, c := range p.sockets {
		if c != nil {
			c.cut()
		}
	}
	p.file.Close()
	<-p.done
}

// poll passes events on until the epoll instance is closed.
func (l *loop) poll(raw syscall.RawConn, done chan<- struct{}) {
	defer close(done)
	buffer := make([]unix.EpollEvent, mostEvents)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), buffer, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		events := slices.Clone(buffer[:n])
		l.do(func() { l.happened(events) })
	}
}

// happened takes in what happened at sockets.
func (l *loop) happened(events []unix.EpollEvent) {
	for _, e := range events {
		if int(e.Fd) >= len(l.poller.sockets) {
			continue
		}
		c := l.poller.sockets[e.Fd]
		if c == nil || c.use != e.Pad {
			continue // it is closed
		}
		switch {
		case e.Events&(unix.EPOLLHUP|unix.EPOLLRDHUP|unix.EPOLLERR) != 0:
			c.lost()
		case e.Events&unix.EPOLLIN != 0:
			c.read(l.discarded[:])
		}
		if c.fd >= 0 && e.Events&unix.EPOLLOUT != 0 {
			c.writable()
		}
	}
}

func (p *poller) add(c *socket) error {
	p.uses++
	c.use = p.uses
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, c.fd, c.events(unix.EPOLLIN)); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for len(p.sockets) <= c.fd {
		p.sockets = append(p.sockets, nil)
	}
	p.sockets[c.fd] = c
	return nil
}

func (c *socket) events(events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd), Pad: c.use}
}

// awaitWritable has the loop know when the socket takes more.
func (p *poller) awaitWritable(c *socket) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, c.fd, c.events(unix.EPOLLIN|unix.EPOLLOUT))
}

func (p *poller) remove(c *socket) {
	p.sockets[c.fd] = nil
}
