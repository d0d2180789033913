package stream

import (
	"sync/atomic"

	"jobprogress/internal/hub"
)

// watch is a topic that streams of a loop show. Its fields but queued belong to the loop.
type watch struct {
	loop       *loop
	subscriber *hub.Subscriber
	members    ring[*member]
	queued     atomic.Bool // it is in the inbox
}

// member is a job in a stream.
type member struct {
	watch  *watch
	stream *stream
	cursor hub.Cursor // what the viewer has been sent
	index  int32      // in watch.members

	// Of a stream of many jobs:
	shown   bool // the viewer was sent the job
	ended   bool
	deleted bool // the row, where that means that the job has succeeded
}

func (m *member) place() *int32 { return &m.index }

// watch has a stream show the topic of a subscriber, which streams of the loop share.
func (l *loop) watch(m *member, subscriber *hub.Subscriber) {
	w := l.watches[subscriber.ID()]
	if w != nil && w.subscriber.Same(subscriber) {
		subscriber.Close()
	} else {
		w = &watch{loop: l, subscriber: subscriber}
		l.watches[subscriber.ID()] = w
		subscriber.Watch(w)
	}
	m.watch = w
	w.members.add(m)
}

// unwatch ends that.
func (l *loop) unwatch(m *member) {
	w := m.watch
	w.members.remove(m)
	if len(w.members.entries) > 0 {
		return
	}
	w.subscriber.Close()
	if id := w.subscriber.ID(); l.watches[id] == w {
		delete(l.watches, id)
	}
}

// Wake is called by the hub, from any goroutine.
func (w *watch) Wake() {
	if w.queued.CompareAndSwap(false, true) {
		w.loop.inbox.wake(w)
	}
}

func (w *watch) changed() {
	w.queued.Store(false)
	if w.members.restart() {
		w.loop.pending = append(w.loop.pending, w)
	}
}

func (w *watch) sweep(most int) (done bool) {
	return w.members.sweep(most, func(m *member) { w.loop.advance(m.stream) })
}
