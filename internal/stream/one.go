package stream

import "jobprogress/internal/hub"

// oneJob is the source of a stream of one job.
type oneJob struct {
	member
	subscriber *hub.Subscriber // until it is open
}

// OneJob is the source of a stream of one job, for a viewer that stands at the cursor. It closes the subscriber.
func OneJob(subscriber *hub.Subscriber, cursor hub.Cursor) Source {
	return &oneJob{member: member{cursor: cursor}, subscriber: subscriber}
}

func (o *oneJob) open(l *loop, s *stream) {
	o.stream = s
	l.watch(&o.member, o.subscriber)
	o.subscriber = nil
}

func (o *oneJob) next(l *loop, s *stream) (*batch, end) {
	b := l.batches.of(l, o.watch, o.cursor)
	if !s.owns(b.account) {
		return nil, endNotOwner
	}
	o.cursor = b.to
	return b, b.end
}

func (o *oneJob) close(l *loop) {
	if o.subscriber != nil {
		o.subscriber.Close()
		return
	}
	l.unwatch(&o.member)
}
