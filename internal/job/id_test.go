package job

import (
	"strings"
	"testing"
)

const someID = "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11"

func TestParseID(t *testing.T) {
	for _, tt := range []struct {
		idType IDType
		text   string
		want   ID // "": refused
	}{
		{IDUUID, someID, someID},
		{IDUUID, strings.ToUpper(someID), someID},
		{IDUUID, "", ""},
		{IDUUID, "nonsense", ""},
		{IDUUID, "{" + someID + "}", ""},
		{IDUUID, "urn:uuid:" + someID, ""},
		{IDUUID, "5f0c3a528f0e4a529d2e0f6f3c1d7e11", ""},
		{IDUUID, "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e1g", ""},
		{IDUUID, someID + "\n", ""},
		{IDUUID, "5f0c3a52_8f0e_4a52_9d2e_0f6f3c1d7e11", ""},
		{IDBigint, "0", "0"},
		{IDBigint, "-12", "-12"},
		{IDBigint, "9223372036854775807", "9223372036854775807"},
		{IDBigint, "9223372036854775808", ""},
		{IDBigint, "007", ""},
		{IDBigint, "+7", ""},
		{IDBigint, "-0", ""},
		{IDBigint, " 7", ""},
		{IDBigint, "1e3", ""},
		{IDBigint, "", ""},
		{IDText, "a/b?c #é", "a/b?c #é"},
		{IDText, strings.Repeat("x", 200), ID(strings.Repeat("x", 200))},
		{IDText, strings.Repeat("x", 201), ""},
		{IDText, "a\x00b", ""},
		{IDText, "\xff", ""},
		{IDText, "", ""},
		{"", "1", ""},
	} {
		got, err := tt.idType.Parse(tt.text)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s %q is read as %q, %v; want %q", tt.idType, tt.text, got, err, tt.want)
		}
	}
}

// The trigger must compute the same: see the tests of package sql.
func TestBucket(t *testing.T) {
	for _, tt := range []struct {
		idType IDType
		id     ID
		want   byte
	}{
		{IDUUID, "00000000-0000-4000-8000-000000000000", 0},
		{IDUUID, "ffffffff-ffff-4fff-8fff-ffffffffff0a", 10},
		{IDUUID, "00000000-0000-4000-8000-0000000000ff", 255},
		{IDUUID, "12", 0},
		{IDBigint, "255", 255},
		{IDBigint, "256", 0},
		{IDBigint, "-1", 255},
		{IDText, "ab", (37*'a' + 'b') & 255},
		{IDText, "xyzab", (37*'a' + 'b') & 255},
		{IDText, "a", (37*'a' + 'a') & 255},
	} {
		if got := tt.idType.Bucket(tt.id); got != tt.want {
			t.Errorf("%s %s is in bucket %d, want %d", tt.idType, tt.id, got, tt.want)
		}
	}
}
