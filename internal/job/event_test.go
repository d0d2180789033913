package job

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEventsAreTheGoldenFrames(t *testing.T) {
	var frames []struct{ Name, Data string }
	text, err := os.ReadFile("testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &frames); err != nil {
		t.Fatal(err)
	}
	zero, three, nine := int64(0), int64(3), int64(9)
	events := map[string][]byte{
		"progress":                Progress{Done: 5, Total: 10, Succeeded: 5}.Event(),
		"progress with a message": Progress{Done: 5, Total: 10, Succeeded: 5, Message: "Fetching page 3"}.Event(),
		"status":                  Completed.Event(),
		"error":                   ErrorEvent("line one\nline \"two\" </script>"),
		"item":                    Item{ItemID: "s1", ItemKind: "song", Status: "in_progress", Label: "Artist – Title"}.Event(),
		"item with all fields": Item{ItemID: "s1", ItemKind: "song", Status: "failed", Label: "𝄞 & <b>",
			Index: &zero, Count: &three, Total: &nine}.Event(),
		"item with the least": Item{ItemID: "s1", ItemKind: "song", Status: "queued"}.Event(),
	}
	for _, f := range frames {
		if diff := cmp.Diff(f.Data, string(events[f.Name])); diff != "" {
			t.Errorf("%s (-golden +got):\n%s", f.Name, diff)
		}
		delete(events, f.Name)
	}
	for name := range events {
		t.Errorf("%s is not in the golden frames", name)
	}
}

func TestStateAsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for name, tt := range map[string]struct {
		snapshot Snapshot
		want     string
	}{
		"bare": {
			Snapshot{ID: "x", Type: "matching", State: State{Account: "secret", Status: Pending}, CreatedAt: &at},
			`{"id":"x","type":"matching","status":"pending","progress":{"done":0,"total":0,"succeeded":0,"failed":0},"error":null,"createdAt":"2026-01-02T03:04:05.000006Z","startedAt":null,"completedAt":null,"updatedAt":null}`,
		},
		"full": {
			Snapshot{ID: "x", Type: "matching", State: State{Status: Failed, Progress: Progress{1, 2, 0, 1, "Fetching page 3"}, Error: "a < b"}, CreatedAt: &at, StartedAt: &at, CompletedAt: &at, UpdatedAt: &at},
			`{"id":"x","type":"matching","status":"failed","progress":{"done":1,"total":2,"succeeded":0,"failed":1,"message":"Fetching page 3"},"error":"a < b","createdAt":"2026-01-02T03:04:05.000006Z","startedAt":"2026-01-02T03:04:05.000006Z","completedAt":"2026-01-02T03:04:05.000006Z","updatedAt":"2026-01-02T03:04:05.000006Z"}`,
		},
	} {
		got, err := tt.snapshot.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
