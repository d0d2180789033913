package main

import (
	"crypto/tls"
	"net/http"
	"testing"

	"jobprogress/internal/pgtest"
)

// eachWay runs a test over each way that a stream can take: a socket of its own, and the handlers of net/http.
func eachWay(t *testing.T, test func(*testing.T, *server), args ...string) {
	t.Helper()
	cert, key := certificate(t)
	for _, way := range []struct {
		name       string
		tls, http2 bool
	}{
		{"HTTP 1.1", false, false},
		{"HTTP 1.1 with TLS", true, false},
		{"HTTP 2", false, true},
		{"HTTP 2 with TLS", true, true},
	} {
		args := args
		if way.tls {
			args = append([]string{"--tls-cert", cert, "--tls-key", key}, args...)
		}
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!way.http2)
		protocols.SetHTTP2(way.http2)
		protocols.SetUnencryptedHTTP2(way.http2)
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 10}
			test(t, serveForTestWith(t, pgtest.New(t), &http.Client{Transport: transport}, args...))
		})
	}
}
