// Package sse writes text/event-stream, the format of Server-Sent Events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). It knows the bytes and nothing of jobs.
//
// The functions append to a buffer, so that a stream writes what it has to say at once. Data and names must not hold
// line ends; JSON never does.
package sse

import (
	"strconv"
	"time"
)

// ContentType is the media type of a stream.
const ContentType = "text/event-stream"

// AppendID appends the id line of an event. It goes before Data.
func AppendID(b []byte, id string) []byte {
	b = append(b, "id: "...)
	b = append(b, id...)
	return append(b, '\n')
}

// Data is the data line of an event and its end: the part that all viewers of an event share.
func Data(data []byte) []byte {
	b := make([]byte, 0, len("data: \n\n")+len(data))
	b = append(b, "data: "...)
	b = append(b, data...)
	return append(b, "\n\n"...)
}

// AppendNamed appends an event of a name, without an id: Last-Event-ID stays what it was.
func AppendNamed(b []byte, name, data string) []byte {
	b = append(b, "event: "...)
	b = append(b, name...)
	b = append(b, "\ndata: "...)
	b = append(b, data...)
	return append(b, "\n\n"...)
}

// AppendComment appends a line that no client shows.
func AppendComment(b []byte, text string) []byte {
	b = append(b, ": "...)
	b = append(b, text...)
	return append(b, '\n')
}

// AppendPing appends a comment that stands alone, to show those in between that the stream is alive.
func AppendPing(b []byte) []byte { return append(AppendComment(b, "ping"), '\n') }

// AppendRetry appends how long a client waits before it connects again, in whole milliseconds. It counts from that
// line on. No blank line follows: some clients take a block without data for an event.
func AppendRetry(b []byte, wait time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, wait.Milliseconds(), 10)
	return append(b, '\n')
}
