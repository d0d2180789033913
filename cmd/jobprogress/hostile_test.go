package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"jobprogress/internal/pgtest"
)

// readAnswer reads what the server says on a raw connection until it closes it.
func readAnswer(t *testing.T, conn net.Conn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(deadline))
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("the server does not close the connection: %v", err)
	}
	return string(answer)
}

func TestBodyThatNeverComes(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "200ms")
	for _, head := range []string{
		"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"GET " + streamOf(s.insert()) + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer " + token(t, ada, time.Hour) + "\r\n\r\n",
	} {
		conn, send := rawConnection(t, s)
		defer conn.Close()
		send(head)
		if answer := readAnswer(t, conn); !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "invalid_body") {
			t.Errorf("answer %q", answer)
		}
	}
}

func TestShortBodyIsPassedOver(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "200ms", "--ping-interval", "100ms")
	r := s.request(streamOf(s.insert()))
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for pings := 0; pings < 5 && lines.Scan(); {
		if lines.Text() == ": ping" {
			pings++
		}
	}
	if lines.Err() != nil {
		t.Errorf("the stream ends early: %v", lines.Err())
	}
}

func TestClientThatAsksAndNeverReads(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "500ms")
	conn, _ := rawConnection(t, s)
	defer conn.Close()
	request := bytes.Repeat([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), 1000)
	conn.SetWriteDeadline(time.Now().Add(deadline))
	for range 10_000 {
		if _, err := conn.Write(request); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the server keeps the connection")
			}
			return
		}
	}
	t.Error("the server answers without end")
}

func TestHalfClosedRequestIsNotTakenForSuccess(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	conn, send := rawConnection(t, s)
	defer conn.Close()
	send("GET " + streamOf("00000000-0000-4000-8000-000000000000") + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token(t, ada, time.Hour) + "\r\n\r\n")
	conn.(*net.TCPConn).CloseWrite()
	if answer := readAnswer(t, conn); strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Errorf("answer %q", answer)
	}
}

// The windows of HTTP/2 are wide open, but nobody reads the connection: no deadline of a stream helps there.
func TestHTTP2ConnectionThatIsNotReadIsCut(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t), "--write-timeout", "500ms")
	id := s.insert()
	conn, send := rawConnection(t, s)
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	send(http2.ClientPreface)
	framer := http2.NewFramer(conn, nil)
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	framer.WriteWindowUpdate(0, 1<<30)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for name, value := range map[string]string{":method": "GET", ":scheme": "http", ":authority": "x", ":path": streamOf(id)} {
		encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	encoder.WriteField(hpack.HeaderField{Name: "authorization", Value: "Bearer " + token(t, ada, time.Hour)})
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	s.eventually("open", func() bool { return s.metric("jobprogress_streams_open") == "1" })
	for i, end := 0, time.Now().Add(4*deadline); s.metric("jobprogress_streams_open") == "1"; {
		for range 200 {
			i++
			s.exec(`update job set error = $2::int || repeat('x', 900) where id = $1`, id, i)
		}
		if time.Now().After(end) {
			t.Fatal("the stream is still open")
		}
	}
}

func TestOversizedHeader(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	response, _ := s.get("/healthz", "X-Large: "+strings.Repeat("x", 1<<20))
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answer %s", response.Status)
	}
}
