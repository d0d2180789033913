package stream

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// manyJobs is the source of a stream of many jobs.
type manyJobs struct {
	group   *hub.Group // until it is open
	members []member   // in the order in which they are shown
	absent  bool       // not all jobs that were named can be: the stream does not end
	list    *list      // nil where the jobs are named
	synced  []byte     // the event that says that all jobs were sent; nil when it was
}

// list is an account's, which wakes its stream.
type list struct {
	*hub.List
	loop   *loop
	stream *stream
	queued atomic.Bool // it is in the inbox
	news   bool
}

// Wake is called by the hub, from any goroutine.
func (w *list) Wake() {
	if w.queued.CompareAndSwap(false, true) {
		w.loop.inbox.wake(w)
	}
}

func (w *list) changed() {
	w.queued.Store(false)
	w.news = true
	w.loop.advance(w.stream)
}

// ManyJobs is the source of a stream of the jobs of a group that has been waited for, which it closes. deleted is what it
// means that a row is not there any more.
func ManyJobs(group *hub.Group, deleted job.Deleted) Source {
	// A job that a page shows from before, and that is not among those that were sent, is not there any more.
	return &manyJobs{group: group, synced: sse.AppendNamed(nil, "synced", fmt.Sprintf(`{"deleted":%q}`, deleted))}
}

func (m *manyJobs) open(l *loop, s *stream) {
	m.members = make([]member, 0, len(m.group.Members))
	for _, subscriber := range m.group.Members {
		if subscriber == nil {
			m.absent = true
			continue
		}
		m.members = append(m.members, member{stream: s})
		l.watch(&m.members[len(m.members)-1], subscriber)
	}
	if m.group.List != nil {
		m.list = &list{List: m.group.List, loop: l, stream: s, news: true}
		m.list.Watch(m.list)
	}
	m.group = nil
}

func (m *manyJobs) close(l *loop) {
	if m.group != nil {
		m.group.Close()
		return
	}
	if m.list != nil {
		m.list.Close()
	}
	for i := range m.members {
		l.unwatch(&m.members[i])
	}
}

func (m *manyJobs) next(l *loop, s *stream) (*batch, end) {
	out := output{text: beginText(l.frames)}
	if m.list != nil && m.list.news {
		m.list.news = false
		m.adjust(l, s, &out)
	}
	for i := range m.members {
		m.members[i].show(l, s, &out)
	}
	var why end
	switch {
	case m.allEnded():
		rows, sent := m.rows()
		if !sent {
			break // they go on, and wake the stream
		}
		why = endFinal
		if out.frames > 0 {
			out.text = slices.Insert(out.text, out.last, sse.AppendID(nil, hub.FinalIDOf(rows))...)
		}
	case m.synced != nil && m.allKnown():
		out.add(m.synced)
		m.synced = nil
	}
	l.frames = out.text
	return l.batches.own(l, batch{text: endText(out.text), frames: out.frames, at: out.at}), why
}

// output gathers frames.
type output struct {
	text   []byte
	frames int
	last   int // where the last frame begins
	at     []time.Time
}

// add appends a frame: its parts one after another.
func (o *output) add(parts ...[]byte) {
	o.last = len(o.text)
	o.frames++
	for _, part := range parts {
		o.text = append(o.text, part...)
	}
}

// addEvent appends an event of one job as one that names it: jobId is the second key.
func (o *output) addEvent(data []byte, quotedID []byte) {
	first := bytes.IndexByte(data, ',') // after the type
	o.add(data[:first], []byte(`,"jobId":`), quotedID, data[first:])
}

// show gathers what the viewer has not seen of a job.
func (m *member) show(l *loop, s *stream, out *output) {
	for m.gather(l, s, out) {
	}
}

// gather gathers it of the topic that is watched. It reports whether that is another one now, whose row may be known already.
func (m *member) gather(l *loop, s *stream, out *output) (renewed bool) {
	subscriber := m.watch.subscriber
	if subscriber.Stands(m.cursor) {
		return false
	}
	id := job.Quote(string(subscriber.ID()))
	if !m.shown || m.deleted {
		now := subscriber.Picture()
		m.cursor = now.Cursor
		if now.Deleted {
			return l.renew(m)
		}
		if !now.Found || !s.owns(now.Row.State.Account) {
			return false
		}
		m.shown, m.ended, m.deleted = true, now.End == hub.Final, false
		out.add(jobEvent(now.Row))
		for _, item := range now.Items {
			out.addEvent(item.Data, id)
		}
		return false
	}
	news := subscriber.Changes(m.cursor)
	m.cursor = news.Cursor
	if news.Deleted {
		renewed = l.renew(m)
	}
	if news.Removed || !s.owns(news.Account) {
		m.remove(out)
		return renewed
	}
	for _, frame := range news.Frames {
		out.addEvent(frame.Data, id)
		if !frame.At.IsZero() {
			out.at = append(out.at, frame.At)
		}
	}
	m.ended, m.deleted = news.End == hub.Final, news.Deleted
	return renewed
}

// remove says that a job is not the viewer's to see any more.
func (m *member) remove(out *output) {
	if m.shown {
		m.shown, m.ended, m.deleted = false, false, false
		out.add(removedEvent(m.watch.subscriber.ID()))
	}
}

// renew watches a job again whose row was deleted: it may come to be again.
func (l *loop) renew(m *member) bool {
	subscriber := l.set.config.Hub.Join(m.watch.subscriber.ID())
	if subscriber == nil {
		return false // the table was changed for one with other ids
	}
	l.unwatch(m)
	l.watch(m, subscriber)
	m.cursor = hub.Cursor{}
	return true
}

// adjust makes the members those of the account's list.
func (m *manyJobs) adjust(l *loop, s *stream, out *output) {
	ids := m.list.IDs()
	members := make([]member, len(ids))
	added := 0
	for _, id := range ids {
		now := &members[added]
		if at := slices.IndexFunc(m.members, func(old member) bool { return old.watch != nil && old.watch.subscriber.ID() == id }); at >= 0 {
			*now = m.members[at]
			now.watch.members.entries[now.index] = now
			m.members[at].watch = nil
		} else if subscriber := l.set.config.Hub.Join(id); subscriber != nil {
			now.stream = s
			l.watch(now, subscriber)
		} else {
			continue
		}
		added++
	}
	for i := range m.members {
		if gone := &m.members[i]; gone.watch != nil {
			gone.remove(out)
			l.unwatch(gone)
		}
	}
	m.members = members[:added]
}

// allEnded reports whether all jobs that were named have ended. An account's list never ends.
func (m *manyJobs) allEnded() bool {
	for i := range m.members {
		if !m.members[i].ended {
			return false
		}
	}
	return m.list == nil && !m.absent
}

// allKnown reports whether all jobs have been read.
func (m *manyJobs) allKnown() bool {
	for i := range m.members {
		if !m.members[i].watch.subscriber.Known() {
			return false
		}
	}
	return true
}

// rows are those of all jobs; sent reports whether the viewer was sent what they say.
func (m *manyJobs) rows() (rows []job.Snapshot, sent bool) {
	for i := range m.members {
		one := &m.members[i]
		rows = append(rows, one.watch.subscriber.Row())
		if !one.watch.subscriber.Stands(one.cursor) {
			return nil, false
		}
	}
	return rows, true
}

// jobEvent is {"type":"job",…} as its data line.
func jobEvent(row job.Snapshot) []byte {
	state, err := row.MarshalJSON()
	if err != nil {
		panic(err) // it only holds strings, integers and moments
	}
	return sse.Data(slices.Concat([]byte(`{"type":"job","jobId":`), job.Quote(string(row.ID)), []byte(`,"job":`), state, []byte(`}`)))
}

// removedEvent is {"type":"removed",…} as its data line.
func removedEvent(id job.ID) []byte {
	return sse.Data(slices.Concat([]byte(`{"type":"removed","jobId":`), job.Quote(string(id)), []byte(`}`)))
}
