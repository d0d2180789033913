package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"jobprogress/internal/store"
)

// What is measured of the way to a stream, in the order in which it is printed.
const (
	measuredHTTP    = "HTTP version"
	measuredHead    = "head after"
	measuredFirst   = "first event after"
	measuredPing    = "ping after"
	measuredServer  = "answered by"
	promptly        = 5 * time.Second // from the head to the first event
	lateForPing     = 5 * time.Second // more than the interval
	defaultInterval = 30 * time.Second
)

var measurements = []string{measuredHTTP, measuredServer, measuredHead, measuredFirst, measuredPing}

// lookAtStream opens a stream as a browser does, and waits for its first ping.
func (c *checkCommand) lookAtStream(ctx context.Context) (r report, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	r = report{Measured: make(map[string]string), summary: "ok: events and pings get through, and nothing changes them."}
	fault := func(code, what, advice string) {
		r.Findings = append(r.Findings, store.Finding{Code: code, Fault: true, What: what, Advice: advice})
	}
	note := func(code, what, advice string) {
		r.Findings = append(r.Findings, store.Finding{Code: code, What: what, Advice: advice})
	}

	target, err := url.Parse(c.URL)
	if err != nil {
		return r, err // checked by validate
	}
	if !strings.HasSuffix(target.Path, "/progress") {
		target = target.JoinPath("progress")
	}
	query := target.Query()
	query.Set("heartbeat", "1")
	target.RawQuery = query.Encode()
	var start time.Time
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { start = time.Now() }}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, target.String(), nil)
	if err != nil {
		return r, fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Accept-Encoding", "gzip, deflate, br") // what compresses streams does so now
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if ctx.Err() != nil && err != nil {
		fault("buffered", fmt.Sprintf("No answer begins within %s: something in between waits for the end of it.", c.Wait), "Switch buffering off for this path: internal/web/proxies has working configurations.")
		return r, nil
	}
	if err != nil {
		fault("unreachable", fmt.Sprintf("No answer: %s.", err), "Is the address right, and does the server or what is before it run?")
		return r, nil
	}
	defer response.Body.Close()
	head := time.Now()
	r.Measured[measuredHTTP] = response.Proto
	r.Measured[measuredHead] = head.Sub(start).Round(time.Millisecond).String()
	if server := strings.Join(append(response.Header.Values("Server"), response.Header.Values("Via")...), ", "); server != "" {
		r.Measured[measuredServer] = server
	}
	if response.StatusCode == http.StatusNoContent {
		note("ended", "The job has ended.", "Name one that goes on.")
		return r, nil
	}
	if response.StatusCode != http.StatusOK {
		var problem struct{ Code, Detail string }
		json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&problem)
		if problem.Code == "" {
			problem.Code = "not jobprogress"
			problem.Detail = "Something in between answers in its place: the URL of a stream is like https://app.example.com/api/jobs/ID/progress."
		}
		if response.StatusCode == http.StatusUnauthorized {
			problem.Detail += " With JOBPROGRESS_LOG_LEVEL=debug the server logs why it refuses."
		}
		fault("status", fmt.Sprintf("The answer is %s (%s): EventSource gives up for good.", response.Status, problem.Code), problem.Detail)
		return r, nil
	}
	if kind := response.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		fault("content_type", fmt.Sprintf("The answer is of type %q, not text/event-stream.", kind), "Something in between answers in its place, or changes it: route this path to jobprogress.")
		return r, nil
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" {
		fault("compressed", fmt.Sprintf("Something in between compresses the stream (%s), and so holds events back.", encoding), "Switch compression off for text/event-stream.")
		return r, nil
	}
	if cache := response.Header.Get("Cache-Control"); cache != "no-store" && !strings.Contains(cache, "no-cache") { // no-store is that of a refusal
		fault("cache_control", fmt.Sprintf("Cache-Control is %q: something in between took no-cache away.", response.Header.Get("Cache-Control")), "Switch caching off for this path.")
	}
	if strings.HasPrefix(response.Proto, "HTTP/1.") {
		note("http_1", "Browsers open six connections to a host over HTTP/1.1, in all tabs together.", "Serve HTTP/2 (TLS) to browsers.")
	}

	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(response.Body); scanner.Scan(); {
			select {
			case lines <- string(bytes.TrimSpace(scanner.Bytes())):
			case <-ctx.Done():
				return
			}
		}
	}()
	interval := defaultInterval
	var refusal string // why the server sent us away
	first := time.NewTimer(promptly)
	defer first.Stop()
	for {
		select {
		case line, ok := <-lines:
			if _, measured := r.Measured[measuredFirst]; !measured && ok {
				r.Measured[measuredFirst] = time.Since(start).Round(time.Millisecond).String()
				first.Stop()
			}
			switch {
			case !ok && ctx.Err() != nil:
				fault("no_ping", fmt.Sprintf("No ping within %s.", c.Wait), "Something in between holds small pieces back, or JOBPROGRESS_PING_INTERVAL is longer: say --wait.")
				return r, nil
			case !ok && refusal != "":
				fault("refused", fmt.Sprintf("The server has viewers come back later (%s).", refusal), "Run jobprogress check on its database, and look into its log.")
				return r, nil
			case !ok:
				fault("cut", fmt.Sprintf("The stream was cut after %s, before a ping.", time.Since(start).Round(100*time.Millisecond)), "Raise the time for which something in between allows silence to more than JOBPROGRESS_PING_INTERVAL.")
				return r, nil
			case strings.HasPrefix(line, ": ") && line != ": ping":
				refusal = line[2:]
			case strings.HasPrefix(line, `data: {"interval":`):
				var milliseconds int
				if _, err := fmt.Sscanf(line, `data: {"interval":%d}`, &milliseconds); err == nil {
					interval = time.Duration(milliseconds) * time.Millisecond
				}
			case strings.HasPrefix(line, "id: final-"):
				note("ended", "The job has ended, so there are no pings.", "Name one that goes on.")
				return r, nil
			case line == ": ping" && time.Since(head) > interval/2: // the one before goes with the first state
				took := time.Since(head)
				r.Measured[measuredPing] = took.Round(time.Millisecond).String()
				if took > interval+lateForPing {
					fault("ping_late", fmt.Sprintf("The ping came after %s, and leaves the server within %s.", took.Round(time.Second), interval), "Something in between holds small pieces back: switch buffering off.")
				}
				return r, nil
			}
		case <-first.C:
			fault("buffered", fmt.Sprintf("The head of the answer is here, and no event within %s: something in between buffers.", promptly), "Switch buffering off for this path: internal/web/proxies has working configurations.")
			return r, nil
		case <-ctx.Done():
			fault("no_ping", fmt.Sprintf("No ping within %s.", c.Wait), "Something in between holds small pieces back, or JOBPROGRESS_PING_INTERVAL is longer: say --wait.")
			return r, nil
		}
	}
}
