package stream

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"jobprogress/internal/sse"
)

// socket is the sink of a stream that has taken its connection over from net/http: a file descriptor, and what the kernel
// has not taken yet.
type socket struct {
	loop   *loop
	stream *stream
	fd     int    // -1 when it is closed
	use    int32  // which use of the descriptor this is: the poller may report on one before
	head   []byte // of the answer, until it is written
	rest   []byte // of what was written
	held   int    // bytes that the kernel had when it was asked last
	last   bool   // the answer ends with rest
}

// takeOver serves a stream over the socket of its request, unless that can't be: HTTP/2 and TLS are more than bytes, and
// HTTP/1.0 has no chunks. net/http gives back all that it holds.
func takeOver(w http.ResponseWriter, r *http.Request, l *loop, s *stream, expires time.Time) bool {
	if _, tcp := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); !tcp || r.TLS != nil || r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return false
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	defer conn.Close() // and the descriptor is the socket's
	out := &socket{loop: l, stream: s, head: head(w.Header())}
	out.fd, err = duplicate(conn)
	if err != nil {
		l.set.config.Log.Error("stream refused", "error", err)
		conn.Write(out.refusal()) // if that fails, so does the viewer
		l.abandon(s, endClient)
		return true
	}
	if !l.do(func() { l.openSocket(s, expires, out) }) {
		sendSome(out.fd, out.refusal())
		unix.Close(out.fd)
		l.abandon(s, endDrained)
	}
	return true
}

// refusal is the answer to a viewer who is to come back, because there is no stream now.
func (c *socket) refusal() []byte {
	return slices.Concat(c.head, endText(sse.AppendRetry(beginText(nil), cutLeast+rand.N(cutSpread))).chunk, []byte(lastChunk))
}

// duplicate returns a descriptor of the connection that is not Go's: net closes its own.
func duplicate(conn net.Conn) (fd int, err error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T has no descriptor", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(original uintptr) {
		unix.SetsockoptInt(int(original), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostHeld) // it goes without
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(err, controlErr)
}

// head is the head of the answer. The connection is not used again.
func head(header http.Header) []byte {
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	header.Set("Transfer-Encoding", "chunked")
	header.Set("Connection", "close")
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	header.Write(&b) // to memory
	b.WriteString("\r\n")
	return b.Bytes()
}

const (
	// lingerTime is how long a client may take to close its side after the end. Closed before it has read that, it might
	// never see it.
	lingerTime = time.Second
	// mostReads bounds what is read at once of a client that sends without end.
	mostReads = 64
	// mostHeld is how much the kernel takes beyond what it can send, in bytes (tcp(7), TCP_NOTSENT_LOWAT). Its own measure is
	// megabytes, and what lies there is not the newest state any more when it is read.
	mostHeld = 32 << 10
)

func (l *loop) openSocket(s *stream, expires time.Time, out *socket) {
	err := l.startPoller()
	if err == nil {
		err = l.poller.add(out)
	}
	if err != nil {
		l.set.config.Log.Error("stream refused", "error", err)
		sendSome(out.fd, out.refusal())
		unix.Close(out.fd)
		l.abandon(s, endClient)
		return
	}
	l.open(s, expires, out)
}

func (c *socket) full() bool { return len(c.rest) > 0 }

func (c *socket) write(t text, shared bool) error {
	b := t.chunk
	if c.head != nil {
		b, shared, c.head = append(c.head, b...), true, nil
	}
	if len(c.rest) > 0 {
		c.rest = slices.Concat(c.rest, b)
		return nil
	}
	return c.send(b, shared)
}

// send gives the kernel what it takes.
func (c *socket) send(b []byte, shared bool) error {
	n, err := sendSome(c.fd, b)
	switch {
	case err != nil:
		return err
	case n == len(b):
		c.rest = nil
		return nil
	}
	if c.rest = b[n:]; !shared {
		c.rest = bytes.Clone(c.rest)
	}
	first := c.stream.cutAt == never
	c.stream.cutAt = c.loop.now + c.loop.set.config.WriteTimeout // it has taken a part of it
	c.loop.lookAgain(c.stream)
	c.moves() // from now on
	if !first {
		return nil
	}
	return c.loop.poller.awaitWritable(c)
}

// moves asks the kernel how much it still has (tcp(7), SIOCOUTQ): it says that the socket is writable only when much of it
// has gone, which a slow client may take long for.
func (c *socket) moves() bool {
	before := c.held
	c.held, _ = unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	return c.held < before
}

// writable goes on with the rest.
func (c *socket) writable() {
	if len(c.rest) == 0 {
		return
	}
	if err := c.send(c.rest, true); err != nil {
		c.lost()
		return
	}
	if len(c.rest) > 0 {
		return
	}
	c.stream.cutAt = never
	if c.last {
		c.linger()
		return
	}
	c.loop.advance(c.stream)
}

// lost is that the viewer left.
func (c *socket) lost() {
	c.loop.end(c.stream, endClient, false)
	c.cut()
}

func (c *socket) finish() {
	c.last = true
	if len(c.rest) > 0 {
		c.rest = slices.Concat(c.rest, []byte(lastChunk))
		return
	}
	end := append(c.head, lastChunk...) // nothing may have been written yet
	c.head = nil
	if err := c.send(end, true); err != nil {
		c.cut()
		return
	}
	if len(c.rest) == 0 {
		c.linger()
	}
}

// linger waits until the client has closed its side, too.
func (c *socket) linger() {
	c.loop.release(c.stream)
	unix.Shutdown(c.fd, unix.SHUT_WR)
	c.stream.cutAt = c.loop.now + lingerTime
	c.loop.wheel.add(c.stream, c.stream.cutAt)
}

func (c *socket) cut() {
	if c.fd < 0 {
		return
	}
	c.loop.poller.remove(c)
	unix.Close(c.fd)
	c.fd = -1
	c.loop.release(c.stream)
}

// read passes over what a viewer sends, which is unwanted, and finds out whether it has left.
func (c *socket) read(buffer []byte) {
	for range mostReads {
		n, err := unix.Read(c.fd, buffer)
		switch {
		case n > 0 || errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return
		default:
			c.lost()
			return
		}
	}
}

// sendSome writes what fits into the buffer of the socket, and returns how much that was. It never sleeps, so it need not
// announce the call to Go's scheduler: without that, a write takes a tenth less.
func sendSome(fd int, b []byte) (n int, err error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}
