package hub

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"

	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// Event ids. Most are <tag>-<version>: a place in one topic's life. Any other id, of another server or from before,
// means "everything", which is harmless. The final frame's is final-<digest of the state>, which is the same on every
// server and in every life of the topic.

// Cursor is where a viewer stands. The zero Cursor is that of a new one.
type Cursor struct {
	version uint64 // of the topic, of which it has seen all; 0 is nothing of it
}

// elsewhere is the version of a viewer whose page shows what another topic sent.
const elsewhere = math.MaxUint64

// Known reports whether the viewer has seen this topic, and not the job elsewhere or never.
func (c Cursor) Known() bool { return c.version > 0 && c.version != elsewhere }

func (c Cursor) foreign() bool { return c.version == elsewhere }

const finalPrefix = "final-"

// Completed is the end of a job whose row is gone, where that means that it has succeeded.
var Completed = Frame{ID: finalPrefix + "deleted", Data: sse.Data(job.Completed.Event())}

// finalID is the event id of an end in a state with this digest.
func finalID(digest []byte) string {
	return finalPrefix + base64.RawURLEncoding.EncodeToString(digest[:12])
}

// FinalIDOf names the state in which these jobs have ended, the same on each server.
func FinalIDOf(rows []job.Snapshot) string {
	digest := sha256.New()
	for _, r := range rows {
		s := r.State
		fmt.Fprintf(digest, "%q %q %v %q %q\n", r.ID, s.Status, s.Progress, s.Error, r.Run)
	}
	return finalID(digest.Sum(nil))
}

// IsFinal reports whether the event of this id was the last of a stream.
func IsFinal(lastEventID string) bool { return strings.HasPrefix(lastEventID, finalPrefix) }

func (t *topic) eventID(version uint64) string {
	return t.tag + "-" + strconv.FormatUint(version, 10)
}

// finalID names the state that a job ended in. The caller holds mu.
func (t *topic) finalID() string {
	p := t.row.State.Progress
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d %d %d %q %s",
		t.id, t.row.State.Status, p.Done, p.Total, p.Succeeded, p.Failed, p.Message, t.row.State.Error))
	return finalID(digest[:])
}

// Cursor is where a viewer stands that has last seen the event of this id; "" is a new viewer.
func (s *Subscriber) Cursor(lastEventID string) Cursor {
	t := s.topic
	version, ok := strings.CutPrefix(lastEventID, t.tag+"-")
	if ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		if n, err := strconv.ParseUint(version, 10, 64); err == nil && 0 < n && n <= t.version {
			return Cursor{version: n}
		}
	}
	if lastEventID != "" {
		return Cursor{version: elsewhere}
	}
	return Cursor{}
}

// Seen reports whether the event of this id was the final one of the state in which the job is now.
func (s *Subscriber) Seen(lastEventID string) bool {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.row.State.Status.Terminal() && !t.gone && lastEventID == t.finalID()
}
