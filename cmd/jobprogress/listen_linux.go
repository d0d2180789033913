package main

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens the address for viewers. One who is gone without a word acknowledges nothing, and one who does not read
// takes nothing: after the timeout the kernel gives them up (tcp(7), TCP_USER_TIMEOUT), where a quarter of an hour would
// pass otherwise.
func listen(address string, timeout time.Duration) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
		})
		if err != nil {
			return err
		}
		return controlErr
	}}
	return config.Listen(context.Background(), "tcp", address)
}
