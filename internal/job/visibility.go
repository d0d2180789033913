package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Visibility says which transactions a statement saw: PostgreSQL's pg_snapshot. The zero Visibility saw none.
type Visibility struct {
	xmin, xmax uint64
	inProgress []uint64 // sorted, each between xmin and xmax
}

// ParseVisibility reads the text form of pg_current_snapshot(), xmin:xmax:xip,xip,….
func ParseVisibility(s string) (Visibility, error) {
	bad := func() error { return fmt.Errorf("pg_snapshot %.60q is not xmin:xmax:xip,…", s) }
	fields := strings.Split(s, ":")
	if len(fields) != 3 {
		return Visibility{}, bad()
	}
	var v Visibility
	var err error
	if v.xmin, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
		return Visibility{}, bad()
	}
	if v.xmax, err = strconv.ParseUint(fields[1], 10, 64); err != nil {
		return Visibility{}, bad()
	}
	if fields[2] == "" {
		return v, nil
	}
	for xip := range strings.SplitSeq(fields[2], ",") {
		xid, err := strconv.ParseUint(xip, 10, 64)
		if err != nil {
			return Visibility{}, bad()
		}
		v.inProgress = append(v.inProgress, xid)
	}
	slices.Sort(v.inProgress)
	return v, nil
}

// Below is what the statement saw of the transactions before xid. It is equal to a later one's if none of them has ended
// meanwhile, and all is true if all have ended.
func (v Visibility) Below(xid uint64) (below Visibility, all bool) {
	if v.xmin >= xid {
		return Visibility{xmin: xid, xmax: xid}, true
	}
	last, _ := slices.BinarySearch(v.inProgress, xid)
	return Visibility{xmin: v.xmin, xmax: min(v.xmax, xid), inProgress: v.inProgress[:last]}, false
}

// Equal tells whether both saw the same.
func (v Visibility) Equal(w Visibility) bool {
	return v.xmin == w.xmin && v.xmax == w.xmax && slices.Equal(v.inProgress, w.inProgress)
}

// Includes tells whether the statement saw what the transaction xid committed: the xid had ended when it began.
func (v Visibility) Includes(xid uint64) bool {
	if xid < v.xmin {
		return true
	}
	if xid >= v.xmax {
		return false
	}
	_, running := slices.BinarySearch(v.inProgress, xid)
	return !running
}
