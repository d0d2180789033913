// Package job holds the words that all other packages use: what a job is, what is told about it, and the JSON of
// both. It stands at both ends of the flow and knows nobody.
package job

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ID names a job: a UUID in its canonical form, 36 characters, lower case.
type ID string

// ParseID reads an ID from its canonical form, in any letter case. Other forms of a UUID (braces, urn:, no hyphens)
// are refused, so that a job has one name.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return "", fmt.Errorf("job id %.40q is not a UUID of 36 characters", s)
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("job id %q is not a UUID", s)
	}
	return ID(id.String()), nil
}

// Buckets is a set of buckets; it has a place for each there is.
type Buckets [256]bool

// Len is how many are in the set.
func (b Buckets) Len() (n int) {
	for _, in := range b {
		if in {
			n++
		}
	}
	return n
}

// Without is the set of those that are not in c.
func (b Buckets) Without(c Buckets) Buckets {
	for i := range b {
		b[i] = b[i] && !c[i]
	}
	return b
}

// Complement is the set of all the others.
func (b Buckets) Complement() Buckets {
	for i := range b {
		b[i] = !b[i]
	}
	return b
}

// Union is the set of those that are in either.
func (b Buckets) Union(c Buckets) Buckets {
	for i := range b {
		b[i] = b[i] || c[i]
	}
	return b
}

// Bucket is the one that the job is in: the last byte of its UUID, by which the database locks, too.
func (id ID) Bucket() byte {
	last, _ := strconv.ParseUint(string(id[34:]), 16, 8) // it is hexadecimal
	return byte(last)
}

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

// Terminal tells whether a job of this status has ended.
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
}

// Finished tells whether nothing more is to be expected of the item.
func (i Item) Finished() bool { return i.Status == "succeeded" || i.Status == "failed" }

// Snapshot is a row of the job table as one statement saw it, or the fact that there is none.
type Snapshot struct {
	ID      ID
	Visible Visibility // the transactions that the statement saw
	Found   bool       // false: there is no such row, and the fields below are zero
	Type    string
	State   State

	CreatedAt, StartedAt, CompletedAt, UpdatedAt *time.Time // nil where the column is null
}

// clean makes outside text fit for JSON and a terminal: a database of another encoding may send bytes that are no
// UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
