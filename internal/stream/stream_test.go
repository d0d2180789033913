package stream

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http/httputil"
	"strings"
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

func TestTextIsAChunk(t *testing.T) {
	var kept []byte
	for _, size := range []int{1, 9, 15, 16, 17, 255, 256, 70_000, 3} {
		said := bytes.Repeat([]byte{'x'}, size)
		kept = append(beginText(kept), said...)
		text := endText(kept)
		if !bytes.Equal(text.bytes(), said) {
			t.Errorf("a text of %d bytes says %d", size, len(text.bytes()))
		}
		read, err := io.ReadAll(httputil.NewChunkedReader(io.MultiReader(bytes.NewReader(text.chunk), strings.NewReader(lastChunk))))
		if err != nil || !bytes.Equal(read, said) {
			t.Errorf("the chunk of %d bytes is read as %d, %v", size, len(read), err)
		}
	}
	if !(text{}).empty() || !endText(beginText(nil)).empty() || pingText.empty() {
		t.Error("empty is wrong")
	}
}

// Whatever comes and goes meanwhile, each entry that stays is looked at after a restart.
func TestRingLooksAtEveryEntry(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		var r ring[*member]
		waits := make(map[*member]bool) // for a look
		for range 300 {
			switch random.IntN(10) {
			case 0, 1, 2:
				m := &member{}
				r.add(m)
			case 3:
				if n := len(r.entries); n > 0 {
					m := r.entries[random.IntN(n)]
					r.remove(m)
					delete(waits, m)
				}
			case 4:
				r.restart()
				for _, m := range r.entries {
					waits[m] = true
				}
			default:
				done := r.sweep(3, func(m *member) {
					delete(waits, m)
					if random.IntN(4) == 0 {
						r.remove(m)
					}
				})
				if done && len(waits) > 0 {
					t.Fatalf("seed %d: a sweep is done, and %d were not looked at", seed, len(waits))
				}
			}
		}
		for !r.sweep(3, func(m *member) { delete(waits, m) }) {
		}
		if len(waits) > 0 {
			t.Fatalf("seed %d: %d were not looked at", seed, len(waits))
		}
	}
}

// A stream is looked at when it is due, at most a tick later, and for the earliest of the times that it was added for.
func TestWheel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var w wheel
	due := make(map[*stream]time.Duration)
	now := time.Duration(0)
	for range 5000 {
		for range random.IntN(3) {
			s, at := &stream{}, now+time.Duration(random.Int64N(int64(30*time.Second)))
			w.add(s, at+time.Duration(random.Int64N(int64(20*time.Second))))
			w.add(s, at)
			w.add(s, at+time.Duration(random.Int64N(int64(time.Second))))
			w.add(s, never)
			due[s] = at
		}
		next, ok := w.next()
		now += time.Duration(random.Int64N(int64(300 * time.Millisecond)))
		looked := 0
		w.due(now, func(s *stream) {
			looked++
			at, waits := due[s]
			if !waits || at > now {
				t.Fatalf("looked at at %s, due at %s: %v", now, at, waits)
			}
			delete(due, s)
		})
		if looked > 0 && (!ok || next > now) {
			t.Fatalf("the next was said to be due at %s, and one was at %s", next, now)
		}
		for _, at := range due {
			if at <= now-tick {
				t.Fatalf("at %s one is not looked at that was due at %s", now, at)
			}
		}
	}
	// One that is due after the wheel's whole time is looked at in between, and not later.
	s := &stream{}
	w.add(s, now+time.Hour)
	if next, _ := w.next(); next > now+time.Minute {
		t.Errorf("it is looked at after %s", next-now)
	}
}
