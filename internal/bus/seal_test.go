package bus

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// genuine is the body {"kind":"item"} as backend 4711 seals it with this key.
const (
	genuineKey = "0123456789abcdef0123456789abcdef"
	genuine    = `{"seal":"6cc0b97380f4c13cbb43b5b4246a0f58","kind":"item"}`
)

func TestSeal(t *testing.T) {
	for name, tt := range map[string]struct {
		key, payload string
		pid          uint32
		want         bool
	}{
		"genuine":         {genuineKey, genuine, 4711, true},
		"another backend": {genuineKey, genuine, 471, false},
		"another key":     {"x" + genuineKey, genuine, 4711, false},
		"no key":          {"", genuine, 4711, false},
		"another body":    {genuineKey, strings.Replace(genuine, "item", "row", 1), 4711, false},
		"no seal":         {genuineKey, `{"kind":"item"}`, 4711, false},
		"half a seal":     {genuineKey, genuine[:20], 4711, false},
	} {
		if got := sealed([]byte(tt.key), &pgconn.Notification{PID: tt.pid, Payload: tt.payload}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzSeal(f *testing.F) {
	f.Add(genuine)
	f.Add(strings.Repeat("x", 50))
	f.Add(sealHead + strings.Repeat("0", sealDigits))
	f.Fuzz(func(t *testing.T, payload string) {
		if sealed([]byte(genuineKey), &pgconn.Notification{PID: 4711, Payload: payload}) != (payload == genuine) {
			t.Errorf("%q", payload)
		}
	})
}
