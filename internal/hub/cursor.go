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

func (t *topic) eventID(version uint64) string {
	return t.tag + "-" + strconv.FormatUint(version, 10)
}

// finalID names the state that a job ended in. The caller holds mu.
func (t *topic) finalID() string {
	p := t.state.Progress
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d %d %d %s",
		t.id, t.state.Status, p.Done, p.Total, p.Succeeded, p.Failed, t.state.Error))
	return "final-" + base64.RawURLEncoding.EncodeToString(digest[:12])
}

// Cursor is where a viewer stands that has last seen the event of this id; 0 when that says nothing here.
func (w *Watcher) Cursor(lastEventID string) uint64 {
	t := w.topic
	version, ok := strings.CutPrefix(lastEventID, t.tag+"-")
	if !ok {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil || n > t.version {
		return 0
	}
	return n
}

// Seen tells whether the event of this id was the final one of the state in which the job is now.
func (w *Watcher) Seen(lastEventID string) bool {
	t := w.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.Status.Terminal() && !t.gone && lastEventID == t.finalID()
}
