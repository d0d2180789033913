// Package job holds the words that all other packages use: what a job is, what viewers are sent of it, and the JSON
// of both. It stands at both ends of the flow and knows nobody.
package job

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Status is the status column as text. An application may have more of them than are named here; only Completed and
// Failed are terminal.
type Status string

// The statuses of contract and stand-in table.
const (
	Pending   Status = "pending"
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
)

// Terminal reports whether a job of this status has ended.
func (s Status) Terminal() bool { return s == Completed || s == Failed }

// State is what a job's viewers see of its row.
type State struct {
	Account  string // owner, as text; "" when the row has none
	Status   Status
	Progress Progress
	Error    string // "" when there is none
}

// Item is the latest that a worker said of one item of a job.
type Item struct {
	ItemID   string `json:"itemId"`
	ItemKind string `json:"itemKind"`
	Status   string `json:"status"` // queued, in_progress, succeeded or failed
	Label    string `json:"label,omitempty"`
	Index    *int64 `json:"index,omitempty"`
	Count    *int64 `json:"count,omitempty"`
	Total    *int64 `json:"total,omitempty"`
	Seq      int64  `json:"-"` // of two statuses of an item the one with the higher Seq counts
}

// ParseItems reads a JSON array of items with their seq, or nothing.
func ParseItems(text []byte) ([]Item, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var wire []struct {
		Item
		Seq int64 `json:"seq"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, fmt.Errorf("parse items: %w", err)
	}
	items := make([]Item, len(wire))
	for i, w := range wire {
		items[i] = w.Item
		items[i].Seq = w.Seq
	}
	return items, nil
}

// Finished reports whether nothing more is to be expected of the item.
func (i Item) Finished() bool { return i.Status == "succeeded" || i.Status == "failed" }

// Snapshot is a row of the job table as one statement saw it, or the fact that there is none.
type Snapshot struct {
	ID    ID
	Found bool // false: there is no such row, and the fields below are zero
	Type  string
	State State
	Run   string // distinguishes the runs of a job; "" when it has not started

	CreatedAt, StartedAt, CompletedAt, UpdatedAt *time.Time // UTC; nil where the column is null

	Items    []Item // by Seq; only those that a Request asked for
	AllItems bool   // Items are all of the run, not only the newer ones
}

// Request asks for a Snapshot with the items of the job's present run.
type Request struct {
	ID     ID
	Bucket byte
	Run    string // the run of the last Snapshot
	Seen   string // pg_snapshot of the last Snapshot, whose items are left out; "" asks for all
}

// NewState makes a State of the columns of a row.
func NewState(account, status string, progress Progress, message string) State {
	progress.Message = clean(progress.Message)
	return State{Account: account, Status: Status(clean(status)), Progress: progress, Error: clean(message)}
}

// clean makes outside text fit for JSON and a terminal: a database of another encoding may send bytes that are no
// UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
