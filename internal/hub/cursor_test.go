package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"jobprogress/internal/job"
)

// page is what a viewer has on its screen, by what an event replaces.
type page map[string]string

var replaces = regexp.MustCompile(`"(itemId":"[^"]*|type":"[^"]*)"`)

func (p page) see(f Frame) {
	keys := replaces.FindAllString(string(f.Data), 2)
	p[keys[len(keys)-1]] = string(f.Data)
}

// A viewer is cut off after any frame and comes back with its last id, to either of two servers. Whatever happens, and
// in whatever order frames are sent, it ends with the page of one who saw everything anew.
func TestViewerCutOffAnywhereMissesNothing(t *testing.T) {
	for seed := range uint64(1000) {
		random := rand.New(rand.NewPCG(seed, 0))
		hubs := []*Hub{liveHub(), liveHub()}
		var servers []*Subscriber
		for _, h := range hubs {
			servers = append(servers, subscribe(t, h, row(running(1))))
		}
		seen, lastID := page{}, ""
		state := running(1)
		for seq := int64(2); seq < 60; seq++ {
			s := someChange(random, state, seq)
			state = s.State
			for _, h := range hubs {
				change(h, s)
			}
			if random.IntN(3) > 0 {
				continue
			}
			w := servers[random.IntN(2)]
			b := w.Changes(w.Cursor(lastID))
			for _, f := range b.Frames[:random.IntN(len(b.Frames)+1)] {
				seen.see(f)
				lastID = f.ID
			}
			if w.Seen(lastID) && b.End != Final {
				t.Fatalf("seed %d: id %q is final, the job is not", seed, lastID)
			}
		}
		w := servers[random.IntN(2)]
		if w.Seen(lastID) {
			continue // it stopped, with the final state on its page
		}
		for _, f := range w.Changes(w.Cursor(lastID)).Frames {
			seen.see(f)
		}
		fresh := page{}
		for _, f := range w.Changes(Cursor{}).Frames {
			fresh.see(f)
		}
		for key, has := range seen {
			if _, expected := fresh[key]; !expected && !strings.Contains(key, "itemId") && !strings.Contains(has, `"message":""`) && !strings.Contains(has, `"total":0`) {
				t.Fatalf("seed %d: the viewer still has %q", seed, has)
			}
		}
		for key, want := range fresh {
			if seen[key] != want {
				t.Fatalf("seed %d: the viewer has %q, the job is %q", seed, seen[key], want)
			}
		}
	}
}

// someChange is something that happens to the job.
func someChange(random *rand.Rand, before job.State, seq int64) job.Snapshot {
	s := running(random.Int64N(10))
	switch n := random.IntN(10); {
	case n < 4:
		return row(before, item(seq, fmt.Sprint("s", random.IntN(4)), []string{"queued", "in_progress", "succeeded", "failed"}[n]))
	case n < 7:
	case n < 8:
		s.Progress = job.Progress{}
	case n < 9:
		s.Error = fmt.Sprint(random.IntN(2))
	default:
		s.Status = job.Completed
	}
	return row(s)
}

func TestForeignIDsMeanEverything(t *testing.T) {
	h := liveHub()
	w := subscribe(t, h, row(running(1)))
	b := w.Changes(Cursor{})
	ids := map[string]uint64{
		b.Frames[1].ID:                        b.Cursor.version,
		w.topic.tag + "-1":                    1,
		w.topic.tag + "-1.be":                 0,
		"":                                    0,
		"x":                                   0,
		"-1":                                  0,
		w.topic.tag:                           0,
		w.topic.tag + "-":                     0,
		w.topic.tag + "-99999":                0,
		w.topic.tag + "--1":                   0,
		"000000000000-1":                      0,
		"final-" + b.Frames[0].ID:             0,
		w.topic.tag + "-1\r\ndata: x":         0,
		w.topic.tag + "-18446744073709551616": 0,
	}
	for id, want := range maps.All(ids) {
		if got := w.Cursor(id); got.Known() != (want > 0) || got.Known() && got.version != want {
			t.Errorf("Cursor(%q) = %v, want version %d", id, got, want)
		}
		if w.Seen(id) {
			t.Errorf("%q is taken for a final id", id)
		}
	}
}

func FuzzLastEventID(f *testing.F) {
	h := liveHub()
	w, _, _ := h.join(jobA)
	h.Feed().Begin(1)
	h.Feed().Finish([]job.Snapshot{row(running(1))}, "1:1:", every)
	f.Add("")
	f.Add(w.topic.tag + "-2")
	f.Add("final-AAAA")
	f.Fuzz(func(t *testing.T, id string) {
		if cursor := w.Cursor(id); cursor.Known() && cursor.version > w.Changes(Cursor{}).Cursor.version {
			t.Errorf("Cursor(%q) = %v is ahead of the topic", id, cursor)
		}
		if w.Seen(id) {
			t.Errorf("%q is taken for a final id of a running job", id)
		}
	})
}
