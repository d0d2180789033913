package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// readyCommand asks a server that runs on this machine, for the health check of a container without curl.
type readyCommand struct {
	Addr    string        `default:"127.0.0.1:8080" env:"JOBPROGRESS_ADDR" help:"Address of the server, as serve has it."`
	TLSCert string        `env:"JOBPROGRESS_TLS_CERT" help:"Set as for serve, if it serves TLS."`
	Timeout time.Duration `default:"3s" help:"How long it may take to answer."`
}

func (c *readyCommand) validate() []error {
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return []error{invalidSetting("addr", "JOBPROGRESS_ADDR", "%q is not host:port", c.Addr)}
	}
	return nil
}

func (c *readyCommand) run(ctx context.Context, stdout, _ io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	host, port, _ := net.SplitHostPort(c.Addr) // it was validated
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // the server listens on all addresses
	}
	scheme := "http"
	// It is this machine's own server, and its certificate has another name.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	if c.TLSCert != "" {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("no server answers: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1000))
	if err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	answer := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return errors.New(answer)
	}
	fmt.Fprintln(stdout, answer)
	return nil
}
