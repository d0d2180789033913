package job

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// The events of a stream, as the JSON that viewers get: type first, then the keys in the order of the contract.
// testdata/frames.json has one of each.

// Event is {"type":"progress",…}.
func (p Progress) Event() []byte {
	return encode(struct {
		Type string `json:"type"`
		Progress
	}{"progress", p})
}

// Event is {"type":"status",…}.
func (s Status) Event() []byte {
	return encode(struct {
		Type   string `json:"type"`
		Status Status `json:"status"`
	}{"status", s})
}

// Event is {"type":"item",…}.
func (i Item) Event() []byte {
	return encode(struct {
		Type string `json:"type"`
		Item
	}{"item", i})
}

// ErrorEvent is {"type":"error",…}. An empty message takes an earlier error back.
func ErrorEvent(message string) []byte {
	return encode(struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	}{"error", message})
}

// MarshalJSON is the state that GET /api/jobs/{id} answers with. The owner is not part of it.
func (s Snapshot) MarshalJSON() ([]byte, error) {
	var message *string
	if s.State.Error != "" {
		message = &s.State.Error
	}
	return encode(struct {
		ID          ID       `json:"id"`
		Type        string   `json:"type"`
		Status      Status   `json:"status"`
		Progress    Progress `json:"progress"`
		Error       *string  `json:"error"`
		CreatedAt   any      `json:"createdAt"`
		StartedAt   any      `json:"startedAt"`
		CompletedAt any      `json:"completedAt"`
		UpdatedAt   any      `json:"updatedAt"`
	}{s.ID, s.Type, s.State.Status, s.State.Progress, message, s.CreatedAt, s.StartedAt, s.CompletedAt, s.UpdatedAt}), nil
}

// Quote is the text as a JSON string.
func Quote(text string) []byte { return encode(text) }

// encode leaves <, > and & as they are: an event is no HTML, and people read it with curl.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // only strings and integers come here
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
