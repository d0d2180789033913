package pgtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
)

// FreePort finds a TCP port without a listener: one of those that the system does not give to outgoing connections,
// so that it stays free for a process that listens there, stops, and listens again.
func FreePort() (int, error) {
	for {
		port := 10_240 + rand.IntN(22_000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, l.Close()
	}
}
