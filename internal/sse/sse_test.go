package sse

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"
)

func TestBytes(t *testing.T) {
	b := AppendRetry(nil, 1500*time.Millisecond)
	b = append(AppendID(b, "a-1"), Data([]byte(`{"x":1}`))...)
	b = AppendPing(b)
	b = AppendNamed(b, "bus", `{"state":"degraded"}`)
	want := "retry: 1500\nid: a-1\ndata: {\"x\":1}\n\n: ping\n\nevent: bus\ndata: {\"state\":\"degraded\"}\n\n"
	if string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}

	if got := string(AppendComment(nil, "draining")); got != ": draining\n" {
		t.Errorf("comment %q", got)
	}

	// An independent reader sees two events, and the named one keeps the id of the other.
	var got []sse.Event
	for e, err := range sse.Read(bytes.NewReader(b), nil) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if want := []sse.Event{{LastEventID: "a-1", Data: `{"x":1}`}, {LastEventID: "a-1", Type: "bus", Data: `{"state":"degraded"}`}}; !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}
