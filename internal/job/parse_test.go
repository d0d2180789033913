package job

import "testing"

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
