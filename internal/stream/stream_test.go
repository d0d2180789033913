package stream

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The pings of many streams do not go out together.
func TestPingsAreSpread(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := silence(30 * time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 24*time.Second || most > 27*time.Second-tick || most-least < 2*time.Second {
		t.Errorf("pings leave after %s to %s", least, most)
	}
}
