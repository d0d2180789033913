package stream

// ring is entries that are swept: looked at one after another, some at a time. When one comes or goes, a sweep under way begins
// anew: places are others then.
type ring[T placed] struct {
	entries []T
	next    int // to be looked at
	left    int // to look at before the sweep is done
}

// placed is an entry that knows its place in a ring.
type placed interface {
	comparable
	place() *int32
}

func (r *ring[T]) add(entry T) {
	*entry.place() = int32(len(r.entries))
	r.entries = append(r.entries, entry)
	if r.left > 0 {
		r.left = len(r.entries)
	}
}

// remove puts the last entry into the place of the one that goes.
func (r *ring[T]) remove(entry T) {
	at, last := *entry.place(), len(r.entries)-1
	moved := r.entries[last]
	r.entries[at] = moved
	*moved.place() = at
	var none T
	r.entries[last] = none
	r.entries = r.entries[:last]
	if r.left > 0 {
		r.left = len(r.entries)
	}
}

// restart has all entries looked at from now on. It reports whether a sweep begins with that, and none was under way.
func (r *ring[T]) restart() (begins bool) {
	begins = r.left == 0 && len(r.entries) > 0
	r.left = len(r.entries)
	return begins
}

// sweep looks at most so many entries, and reports whether it is through. look may remove the entry.
func (r *ring[T]) sweep(most int, look func(T)) (done bool) {
	for ; most > 0 && r.left > 0; most-- {
		if r.next >= len(r.entries) {
			r.next = 0
		}
		entry := r.entries[r.next]
		look(entry)
		if r.next < len(r.entries) && r.entries[r.next] == entry { // else another took its place, to be looked at next
			r.next++
			r.left--
		}
	}
	return r.left == 0
}
