package trust

import (
	"fmt"
	"time"
)

// check compares what a view saw since the last time with what was written. It returns the first broken promise, or "".
// The caller holds the viewer's mu; no transaction is under way.
func (one *view) check(h *history) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; one.checked < len(one.seen); one.checked++ {
		if broken := one.checkSight(h, one.checked); broken != "" {
			return broken
		}
	}
	return ""
}

func (one *view) checkSight(h *history, i int) string {
	s := one.seen[i]
	switch s.what {
	case "progress", "status", "error", "item", "deleted":
		if !h.owners[one.job][one.viewer.account] {
			return fmt.Sprintf("it saw %s of a job that was never its own", s.what)
		}
	}
	if ended := one.endedBefore(i); ended && s.what != "end" && !one.many {
		return fmt.Sprintf("after the final frame of its stream it saw %s", s.what)
	}
	switch s.what {
	case "progress":
		if broken := one.checkWrite(h, s.seq); broken != "" {
			return broken
		}
		if w := h.writes[s.seq]; w.done >= 0 && (w.run != s.run || w.done != s.done) {
			return fmt.Sprintf("write %d is shown as run %d done %d", s.seq, s.run, s.done)
		}
		// Runs follow one another, and done only grows in each.
		place := s.run<<40 + s.done
		if place < one.highest["progress"] {
			return fmt.Sprintf("it was taken back to run %d done %d", s.run, s.done)
		}
		one.highest["progress"] = place
	case "status":
		w := h.writes[s.seq]
		if terminal(s.status) && w != nil && w.status != "" && (w.status != s.status || w.err != s.err) {
			return fmt.Sprintf("the job ended as %s error %d with write %d before it, which says %s error %d", s.status, s.err, s.seq, w.status, w.err)
		}
		if terminal(s.status) {
			one.highest["ended"] = s.run
		} else if ended, ok := one.highest["ended"]; ok && max(s.run, one.runNext(i)) <= ended {
			return fmt.Sprintf("it was taken back into run %d, which had ended", s.run)
		}
	case "error":
		if s.err == 0 {
			break
		}
		if broken := one.checkCarried(h, s.err); broken != "" {
			return broken
		}
		if w := h.writes[s.err]; w.done >= 0 {
			if place := w.run<<40 + w.done; place < one.highest["error"] {
				return fmt.Sprintf("it was taken back to error %d", s.err)
			} else {
				one.highest["error"] = place
			}
		}
	case "item":
		return one.checkItem(h, s)
	case "deleted":
		if !h.deleted[one.job] {
			return "it saw a deletion that was not tried"
		}
	case "404", "removed":
		others := len(h.owners[one.job])
		if h.owners[one.job][one.viewer.account] {
			others--
		}
		if !h.deleted[one.job] && others == 0 {
			return "its own job was not found, or removed"
		}
	case "204":
		if !terminal(one.statusBefore(i)) {
			return "it was answered 204 for an end that it had not seen"
		}
	case "200", "end":
	default:
		return fmt.Sprintf("it was answered %s %s", s.what, s.data)
	}
	return ""
}

// runNext is the run of the progress that came together with a sight: a viewer that was cut off in the middle of what it was
// sent of a run that had ended receives of the next run in the order in which its parts have changed last.
func (one *view) runNext(i int) int64 {
	s := one.seen[i]
	for _, next := range one.seen[i+1:] {
		if next.connection != s.connection || next.at-s.at > 50*time.Millisecond {
			break
		}
		if next.what == "progress" {
			return next.run
		}
	}
	return 0
}

// checkItem returns what is wrong with showing the viewer an item.
func (one *view) checkItem(h *history, s sight) string {
	if broken := one.checkWrite(h, s.itemSeq); broken != "" {
		return broken
	}
	w := h.writes[s.itemSeq]
	if w.item != s.item {
		return fmt.Sprintf("write %d is shown as item %s", s.itemSeq, s.item)
	}
	if run, known := h.runs[one.job][w.started]; known && run < s.run {
		return fmt.Sprintf("it saw item %s of run %d in run %d", s.item, run, s.run)
	}
	// The newest of a run is the highest in the log. What has no run may be shown again after a run between, for whose
	// sake the newest of it was swept, perhaps before an older one committed.
	if !w.named() && len(h.runs[one.job]) > 1 {
		return ""
	}
	key, place := fmt.Sprintf("item %s of %s", s.item, w.started), w.place()
	if place < one.highest[key] && !h.mayBeLost(w, s.at) {
		return fmt.Sprintf("item %s of run %q was taken back to seq %d from %d", s.item, w.started, w.logSeq, one.highest[key]&(1<<40-1))
	}
	one.highest[key] = place
	return ""
}

// checkWrite returns what is wrong with showing the viewer a write.
func (one *view) checkWrite(h *history, seq int64) string {
	w := h.writes[seq]
	switch {
	case w == nil:
		return fmt.Sprintf("it saw write %d, which never was", seq)
	case w.job != one.job:
		return fmt.Sprintf("it saw write %d of job %s", seq, w.job)
	case w.outcome == aborted || w.outcome == overtaken || w.outcome == unkept:
		return fmt.Sprintf("it saw write %d, which never committed: %s", seq, w.outcome)
	case w.account != "" && w.account != one.viewer.account:
		return fmt.Sprintf("it saw write %d of another account's job", seq)
	}
	return ""
}

// checkCarried is checkWrite of an error text, which later writes of the transaction may have kept.
func (one *view) checkCarried(h *history, seq int64) string {
	w := h.writes[seq]
	if w != nil && w.outcome == overtaken {
		for _, later := range h.writes {
			if later.job == w.job && later.err == seq && (later.outcome == committed || later.outcome == unknown) {
				return ""
			}
		}
	}
	if w != nil && w.job == one.job && w.outcome != aborted && w.outcome != overtaken {
		return "" // the present owner may see its error
	}
	return one.checkWrite(h, seq)
}

// endedBefore reports whether the connection of sight i had shown the end of the job before.
func (one *view) endedBefore(i int) bool {
	for j := i - 1; j >= 0 && one.seen[j].connection == one.seen[i].connection; j-- {
		if s := one.seen[j]; s.what == "deleted" || s.what == "status" && terminal(s.status) {
			return true
		}
	}
	return false
}

func (one *view) statusBefore(i int) string {
	for j := i - 1; j >= 0; j-- {
		if one.seen[j].what == "status" {
			return one.seen[j].status
		}
	}
	return ""
}

// row is a job as the database has it.
type row struct {
	account, status string
	run, done, seq  int64
	err             int64
	items           map[string]int64 // of the present run: item → the newest write in the log
}

// differs returns how the page is not yet as the row is; "" when it is. Items are compared while the job goes on: what the
// page shows and the log no longer has is right. The caller holds the viewer's mu.
func (one *view) differs(r row, found bool) string {
	switch {
	case !found || r.account != one.viewer.account:
		if one.ended != "gone" {
			return "the job is gone or another's, and it still shows it"
		}
		return ""
	case terminal(r.status) && one.ended != "final":
		return "the job has ended, and it was not answered 204"
	case !terminal(r.status) && one.ended != "":
		return "the job goes on, and it was ended: " + one.ended
	}
	return one.shows(r)
}

// shows returns how what is shown differs from the row.
func (one *view) shows(r row) string {
	switch {
	case one.shown.seq != r.seq || one.shown.status != r.status || one.shown.err != r.err:
		return fmt.Sprintf("it shows write %d %s error %d, the row is write %d %s error %d",
			one.shown.seq, one.shown.status, one.shown.err, r.seq, r.status, r.err)
	case terminal(r.status):
		return "" // what was said of items after the end is not shown
	}
	h := one.viewer.world.history
	h.mu.Lock()
	defer h.mu.Unlock()
	for item, seq := range r.items {
		shown, newest := h.writes[one.items[item]], h.writes[seq]
		switch {
		case shown == newest:
		case shown != nil && !shown.named() && shown.place() > newest.place(): // it was swept, or hidden by an earlier run
		default:
			return fmt.Sprintf("it shows write %d of item %s, the log has write %d", one.items[item], item, seq)
		}
	}
	return ""
}
