package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Notice is what the database said on the channel. Anybody who may connect can say anything there.
type Notice struct {
	Kind  Kind
	Job   ID
	XID   uint64    // of the writer's transaction; only with KindState
	At    time.Time // when the writer committed, by the database's clock; zero when not said
	State State     // only with KindState
	Item  Item      // only with KindItem
	Probe string    // only with KindProbe
}

// Kind tells the notices apart.
type Kind string

// The kinds of a notice.
const (
	KindState Kind = "state" // the row's state as committed by transaction XID
	KindRow   Kind = "row"   // the row was deleted or does not fit a notice: look at it
	KindItem  Kind = "item"  // jobprogress.item was called
	KindProbe Kind = "probe" // the bus asks itself whether it hears
)

// ParseNotice reads the payload of a notification.
func ParseNotice(payload string) (Notice, error) {
	var wire struct {
		Kind     Kind            `json:"kind"`
		Job      string          `json:"job"`
		XID      uint64          `json:"xid,string"`
		At       int64           `json:"at"` // microseconds since 1970
		Account  string          `json:"account"`
		Status   string          `json:"status"`
		Progress json.RawMessage `json:"progress"`
		Error    string          `json:"error"`
		Item     Item            `json:"item"`
		Probe    string          `json:"probe"`
	}
	if err := json.Unmarshal([]byte(payload), &wire); err != nil {
		return Notice{}, fmt.Errorf("parse notice: %w", err)
	}
	n := Notice{Kind: wire.Kind}
	if wire.At > 0 {
		n.At = time.UnixMicro(wire.At)
	}
	if n.Kind == KindProbe {
		n.Probe = wire.Probe
		return n, nil
	}
	var err error
	if n.Job, err = ParseID(wire.Job); err != nil {
		return Notice{}, fmt.Errorf("parse notice: %w", err)
	}
	switch n.Kind {
	case KindRow:
	case KindState:
		if wire.XID == 0 || wire.Status == "" {
			return Notice{}, errors.New("parse notice: state without xid or status")
		}
		n.XID = wire.XID
		n.State = NewState(wire.Account, wire.Status, wire.Progress, wire.Error)
	case KindItem:
		switch wire.Item.Status {
		case "queued", "in_progress", "succeeded", "failed":
		default:
			return Notice{}, fmt.Errorf("parse notice: item status %.40q", wire.Item.Status)
		}
		n.Item = wire.Item
	default:
		return Notice{}, fmt.Errorf("parse notice: kind %.40q", n.Kind)
	}
	return n, nil
}

// NewState makes a State of the columns of a row.
func NewState(account, status string, progress []byte, message string) State {
	return State{
		Account:  account,
		Status:   Status(clean(status)),
		Progress: ParseProgress(progress),
		Error:    clean(message),
	}
}
