package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
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
	for _, size := range []int{40 << 10, 1 << 20} {
		response, _ := s.get("/healthz", "X-Large: "+strings.Repeat("x", size))
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%d bytes are answered %s", size, response.Status)
		}
	}
}

// Behind a proxy, the streams of many visitors share a connection. One with too many cookies must not cut all of them.
func TestOversizedHeaderLeavesTheHTTP2ConnectionOpen(t *testing.T) {
	t.Parallel()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	var dials atomic.Int32
	s := serveForTestWith(t, pgtest.New(t), &http.Client{Transport: &http.Transport{Protocols: protocols,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		}}})
	id := s.insert()
	st := s.open(streamOf(id))
	st.until("running")
	for _, size := range []int{40 << 10, 100 << 10, 200 << 10} {
		response, _ := s.get("/healthz", "Cookie: a="+strings.Repeat("x", size))
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%d bytes are answered %s", size, response.Status)
		}
	}
	s.progress(id, 5)
	st.until(doneEvent(5))
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A thousand connections say nothing, and one is slow with its headers: others are served, and all of them are closed.
func TestConnectionsThatNeverAsk(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	var silent []net.Conn
	for range 1000 {
		conn, _ := rawConnection(t, s)
		defer conn.Close()
		silent = append(silent, conn)
	}
	slow, send := rawConnection(t, s)
	defer slow.Close()
	send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	id := s.insert()
	st := s.open(streamOf(id))
	s.progress(id, 3)
	st.until(doneEvent(3))
	for _, conn := range append(silent, slow) {
		readAnswer(t, conn)
	}
	s.progress(id, 4)
	st.until(doneEvent(4))
}

func TestIDsInOddForms(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	for form, status := range map[string]int{
		strings.ToUpper(id): 200,
		"%" + hex.EncodeToString([]byte{id[0]}) + id[1:]: 200,
		strings.ReplaceAll(id, "-", ""):                  400,
		"{" + id + "}":                                   400,
		"urn:uuid:" + id:                                 400,
		id + "%00":                                       400,
		id + "%20":                                       400,
		id + "'--":                                       400,
		id[:35]:                                          400,
		id[:35] + "%C3%A9":                               400,
		strings.Repeat("9", 1000):                        400,
		"..%2F..%2Fetc%2Fpasswd":                         400,
		"%FF":                                            400,
		"null":                                           400,
		id + "/":                                         404,
	} {
		if response, body := s.get("/api/jobs/" + form); response.StatusCode != status {
			t.Errorf("%q: %s %s, want %d", form, response.Status, body, status)
		}
	}
}

// Whatever a text holds, an event stays one data line, and what is read is what was written, cut to its length.
func TestTextThatLooksLikeFraming(t *testing.T) {
	t.Parallel()
	s := serveForTest(t, pgtest.New(t))
	id := s.insert()
	st := s.open(streamOf(id))
	st.until("running")
	for i, text := range []string{
		"line\nline\r\nline\rend", "\n\ndata: {\"type\":\"status\",\"status\":\"completed\"}\n\n", "event: bus\nid: 7\nretry: 1",
		`\u0000 \ud800 \n \`, "</script><script>alert(1)</script>", "\u2028\u2029\u0085", "\x01\x1f\x7f", "\U0001F3B5 \u0301 \u202e", `"`, "'; drop table job --",
	} {
		s.exec(`update job set error = $2 where id = $1`, id, text)
		expectText(t, st, `"error"`, "message", text)
		s.exec(`select jobprogress.item($1, $2, 'song', 'queued', $3)`, id, strconv.Itoa(i), text)
		expectText(t, st, `"item"`, "label", text)
	}
}

func expectText(t *testing.T, st *stream, kind, key, want string) {
	t.Helper()
	block := st.until(`"type":` + kind)
	lines := strings.Split(block, "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "id: ") || !strings.HasPrefix(lines[1], "data: ") {
		t.Fatalf("the event is %q", block)
	}
	var event map[string]any
	if err := json.Unmarshal([]byte(lines[1][len("data: "):]), &event); err != nil || event[key] != want {
		t.Errorf("read %q, %v, written %q", event[key], err, want)
	}
}
