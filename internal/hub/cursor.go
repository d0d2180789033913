package hub

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Event ids. Most are <tag>-<version>: a place in one topic's life. Any other id, of another server or from before,
// means "everything", which is harmless. The final frame's is final-<digest of the state>, which is the same on every
// server and in every life of the topic.
//
// What is gone, a page must be told only if it shows it, and another server can't know: so the ids of pages that show a
// bar or an error end in .b, .e or .be.

// Cursor is where a viewer stands. The zero Cursor is that of a new one.
type Cursor struct {
	version        uint64 // of the topic, of which it has seen all; 0 is nothing of it
	bar, complaint bool   // it shows a progress, an error
}

// Known tells whether the viewer has seen this topic, and not the job elsewhere or never.
func (c Cursor) Known() bool { return c.version > 0 }

func (c Cursor) marks() string {
	switch {
	case c.bar && c.complaint:
		return ".be"
	case c.bar:
		return ".b"
	case c.complaint:
		return ".e"
	}
	return ""
}

// end is the cursor of a viewer that has seen everything. The caller holds mu.
func (t *topic) end() Cursor {
	return Cursor{version: t.version, bar: t.state.Progress.Total != 0, complaint: t.state.Error != ""}
}

func (t *topic) eventID(c Cursor) string {
	return t.tag + "-" + strconv.FormatUint(c.version, 10) + c.marks()
}

// finalID names the state that a job ended in. The caller holds mu.
func (t *topic) finalID() string {
	p := t.state.Progress
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d %d %d %s",
		t.id, t.state.Status, p.Done, p.Total, p.Succeeded, p.Failed, t.state.Error))
	return "final-" + base64.RawURLEncoding.EncodeToString(digest[:12]) + t.end().marks()
}

// Cursor is where a viewer stands that has last seen the event of this id.
func (w *Watcher) Cursor(lastEventID string) Cursor {
	t := w.topic
	place, marks, _ := strings.Cut(lastEventID, ".")
	c := Cursor{bar: strings.Contains(marks, "b"), complaint: strings.Contains(marks, "e")}
	version, ok := strings.CutPrefix(place, t.tag+"-")
	if !ok {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, err := strconv.ParseUint(version, 10, 64); err == nil && n <= t.version {
		c.version = n
	}
	return c
}

// Seen tells whether the event of this id was the final one of the state in which the job is now.
func (w *Watcher) Seen(lastEventID string) bool {
	t := w.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.Status.Terminal() && !t.gone && lastEventID == t.finalID()
}
