//go:build !linux

package main

import (
	"net"
	"time"
)

// listen opens the address for viewers.
func listen(address string, _ time.Duration) (net.Listener, error) {
	return net.Listen("tcp", address)
}
