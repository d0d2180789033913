package job

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const someID = ID("5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11")

func TestParseID(t *testing.T) {
	for text, want := range map[string]ID{
		string(someID):                           someID,
		strings.ToUpper(string(someID)):          someID,
		"":                                       "",
		"nonsense":                               "",
		"{" + string(someID) + "}":               "",
		"urn:uuid:" + string(someID):             "",
		"5f0c3a528f0e4a529d2e0f6f3c1d7e11":       "",
		"5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e1g":   "",
		"5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11\n": "",
		"5f0c3a52_8f0e_4a52_9d2e_0f6f3c1d7e11":   "",
	} {
		got, err := ParseID(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseID(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestParseProgress(t *testing.T) {
	for column, want := range map[string]Progress{
		`{"total":100,"done":50,"succeeded":48,"failed":2}`: {50, 100, 48, 2},
		`{"total":3}`:                          {Total: 3},
		`{"total":3.0,"done":2e0}`:             {Total: 3, Done: 2},
		`{"done":9007199254740991}`:            {Done: MaxCount},
		`{"done":9007199254740992}`:            {},
		`{"done":-1,"total":1.5}`:              {},
		`{"done":1e30,"total":1e400}`:          {},
		`{"done":"5","total":null}`:            {},
		`{"done":true,"total":{},"failed":[]}`: {},
		``:                                     {}, `null`: {}, `{}`: {}, `[]`: {}, `"x"`: {}, `1`: {}, `{"done":`: {},
	} {
		if got := ParseProgress([]byte(column)); got != want {
			t.Errorf("ParseProgress(%s) = %v, want %v", column, got, want)
		}
	}
}

func FuzzParseProgress(f *testing.F) {
	for _, seed := range []string{`{"total":100,"done":50,"succeeded":48,"failed":2}`, `{"done":1e30}`, `[]`, `{"done":-0.0}`, `{"done":"x"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, column []byte) {
		p := ParseProgress(column)
		for _, n := range []int64{p.Done, p.Total, p.Succeeded, p.Failed} {
			if n < 0 || n > MaxCount {
				t.Errorf("ParseProgress(%q) = %v", column, p)
			}
		}
	})
}

func TestParseNotice(t *testing.T) {
	index := int64(7)
	for payload, want := range map[string]Notice{
		`{"kind":"state","job":"` + string(someID) + `","xid":"18446744073709551615","at":1000001,"account":"a","status":"running","progress":{"done":1,"total":2},"error":null}`: {
			Kind: KindState, Job: someID, XID: 1<<64 - 1, At: time.UnixMicro(1000001),
			State: State{Account: "a", Status: Running, Progress: Progress{Done: 1, Total: 2}},
		},
		`{"kind":"row","job":"` + string(someID) + `"}`: {Kind: KindRow, Job: someID},
		`{"kind":"item","job":"` + string(someID) + `","item":{"itemId":"s","itemKind":"song","status":"queued","index":7}}`: {
			Kind: KindItem, Job: someID, Item: Item{ItemID: "s", ItemKind: "song", Status: "queued", Index: &index},
		},
		`{"kind":"probe","probe":"x"}`: {Kind: KindProbe, Probe: "x"},
	} {
		got, err := ParseNotice(payload)
		if err != nil {
			t.Errorf("ParseNotice(%s): %v", payload, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseNotice(%s) (-want +got):\n%s", payload, diff)
		}
	}
	for _, payload := range []string{
		``, `garbage`, `{`, `null`, `[]`, `1`, `{}`, strings.Repeat("x", 7999),
		`{"kind":"row"}`,
		`{"kind":"row","job":"x"}`,
		`{"kind":"other","job":"` + string(someID) + `"}`,
		`{"kind":"state","job":"` + string(someID) + `","status":"running"}`,
		`{"kind":"state","job":"` + string(someID) + `","xid":"7"}`,
		`{"kind":"state","job":"` + string(someID) + `","xid":"-7","status":"running"}`,
		`{"kind":"state","job":"` + string(someID) + `","xid":"18446744073709551616","status":"running"}`,
		`{"kind":"item","job":"` + string(someID) + `","item":{"itemId":"s","itemKind":"song","status":"lost"}}`,
		`{"kind":"item","job":"` + string(someID) + `","item":7}`,
	} {
		if n, err := ParseNotice(payload); err == nil {
			t.Errorf("ParseNotice(%.100s) = %v, want an error", payload, n)
		}
	}
}

func FuzzParseNotice(f *testing.F) {
	f.Add(`{"kind":"state","job":"` + string(someID) + `","xid":"7","at":1,"account":"a","status":"running","progress":{"done":1},"error":"x"}`)
	f.Add(`{"kind":"item","job":"` + string(someID) + `","item":{"itemId":"s","itemKind":"song","status":"queued","label":"\ud800"}}`)
	f.Add(`{"kind":"probe","probe":"x"}`)
	f.Add(`garbage`)
	f.Fuzz(func(t *testing.T, payload string) {
		n, err := ParseNotice(payload)
		if err != nil {
			return
		}
		for _, event := range [][]byte{n.State.Progress.Event(), n.State.Status.Event(), ErrorEvent(n.State.Error), n.Item.Event()} {
			if !json.Valid(event) || strings.ContainsAny(string(event), "\r\n") {
				t.Errorf("%q becomes the event %q", payload, event)
			}
		}
	})
}

func TestVisibility(t *testing.T) {
	v, err := ParseVisibility("10:20:15,12")
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint64]bool{1: true, 9: true, 10: true, 11: true, 12: false, 13: true, 15: false, 19: true, 20: false, 21: false, 1<<64 - 1: false} {
		if got := v.Includes(xid); got != want {
			t.Errorf("10:20:15,12 includes %d: %v, want %v", xid, got, want)
		}
	}
	if (Visibility{}).Includes(1) {
		t.Error("the zero Visibility includes 1")
	}
	for _, bad := range []string{"", "10", "10:20", "a:20:", "10:b:", "10:20:x", "10:20:12,", "10:20:12:1"} {
		if _, err := ParseVisibility(bad); err == nil {
			t.Errorf("ParseVisibility(%q) finds no fault", bad)
		}
	}
}

func TestBucketIsTheLastByte(t *testing.T) {
	for id, want := range map[ID]byte{
		"00000000-0000-4000-8000-000000000000": 0,
		"ffffffff-ffff-4fff-8fff-ffffffffff0a": 10,
		"00000000-0000-4000-8000-0000000000ff": 255,
	} {
		if got := id.Bucket(); got != want {
			t.Errorf("%s is in bucket %d, want %d", id, got, want)
		}
	}
}

func TestWhatWasSeenBelow(t *testing.T) {
	visible := func(s string) Visibility {
		v, err := ParseVisibility(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		before, after string
		same, all     bool // after: nothing has ended since, all has ended
	}{
		{"10:10:", "10:10:", true, false}, // 10 to 19 had begun, and none ended
		{"10:10:", "10:13:10,11", false, false},
		{"10:30:10,25", "10:40:10,25,35", true, false}, // what ended after 20 is nothing to us
		{"10:30:10,12", "12:30:12", false, false},
		{"10:30:10", "20:30:20", false, true},
		{"10:30:10", "31:31:", false, true},
	} {
		before, _ := visible(tt.before).Below(20)
		after, all := visible(tt.after).Below(20)
		if after.Equal(before) != tt.same || all != tt.all {
			t.Errorf("%s, then %s: the same %t, all %t", tt.before, tt.after, after.Equal(before), all)
		}
	}
}
