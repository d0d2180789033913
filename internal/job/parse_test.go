package job

import (
	"strings"
	"testing"
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

func TestParseCount(t *testing.T) {
	for value, want := range map[string]int64{
		"5": 5, "3.0": 3, "2e0": 2, "9007199254740991": MaxCount, "9007199254740992": 0,
		"-1": 0, "1.5": 0, "1e30": 0, "1e400": 0, `"5"`: 0, "null": 0, "true": 0, "{}": 0, "[]": 0, "": 0, "NaN": 0, "-0.0": 0, "0x10": 0,
	} {
		if got := ParseCount(value); got != want {
			t.Errorf("ParseCount(%s) = %d, want %d", value, got, want)
		}
	}
}

func FuzzParseCount(f *testing.F) {
	for _, seed := range []string{"50", "1e30", "[]", "-0.0", `"x"`, "Infinity"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if n := ParseCount(value); n < 0 || n > MaxCount {
			t.Errorf("ParseCount(%q) = %d", value, n)
		}
	})
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
