package stream

import "time"

// tick is how exactly a stream is looked at: up to so much later than is due.
const tick = 50 * time.Millisecond

// wheel is when streams are to be looked at: a slot for each tick of the next 50 seconds. A stream that has longer is looked
// at in between.
type wheel struct {
	slots [1024][]*stream
	last  int64 // the tick whose streams were looked at last
}

// add has a stream looked at, at a time since the loop began. An earlier time that it was added for stands.
func (w *wheel) add(s *stream, at time.Duration) {
	if at == never {
		return
	}
	t := int64(at+tick-1) / int64(tick)
	t = min(max(t, w.last+1), w.last+int64(len(w.slots))-1)
	if s.dueTick != 0 && s.dueTick <= t {
		return
	}
	s.dueTick = t
	slot := &w.slots[t%int64(len(w.slots))]
	*slot = append(*slot, s)
}

// next is when the wheel has something due.
func (w *wheel) next() (at time.Duration, ok bool) {
	for t := w.last + 1; t < w.last+int64(len(w.slots)); t++ {
		if len(w.slots[t%int64(len(w.slots))]) > 0 {
			return time.Duration(t) * tick, true
		}
	}
	return 0, false
}

// due looks at the streams that are due until now. They may be added again meanwhile.
func (w *wheel) due(now time.Duration, look func(*stream)) {
	for w.last < int64(now/tick) {
		w.last++
		slot := &w.slots[w.last%int64(len(w.slots))]
		streams := *slot
		*slot = nil
		for _, s := range streams {
			if s.dueTick == w.last { // else it was added for an earlier time too
				s.dueTick = 0
				look(s)
			}
		}
	}
}
