// Package bus is the PostgreSQL end of the flow. A notification says look, a read says what: the listener receives which
// jobs changed, the reader reads them into the hub, and that read is the only way in which state arrives.
//
// # Who owns what
//
//	listener     the session that listens (pgxlisten's)
//	listenState  whether it listens, and what arrived: the listener writes it, the reader reads it, behind a mutex
//	reader       the session that reads, and all that depends on it: probe, gate, pace, poller, health
//	sweeper      a session of its own, while it sweeps
//	checker      a session of its own for each look at what stands in the way
//
// Files call downward: listen → state → hub, read → probe, gate, pace, poll, lists → store.
//
// # The reader's session
//
//	connecting → probing → live ⇄ degraded
//
// A probe is a notification that the reader's session sends and the listener must receive. Before the first has come back
// the session has no settings, no locks and reads nothing: behind a transaction pooler all of these would be somebody
// else's, and without LISTEN in force a read proves nothing about what comes after it. After that it reads for as long as
// it lasts. While the bus is degraded, because the listener is away, all topics are polled.
//
// # A bucket of jobs
//
//	notified ⇄ polled
//
// A bucket is made of the end of the job's id. The reader's session holds the shared advisory lock of a notified bucket,
// and writers notify its changes. It releases the lock of a bucket that is over budget; the jobs of that are polled. So
// are, for a moment, those of a bucket whose lock was taken just now: a transaction that has found no lock may not have
// ended yet. It has a transaction id lower than the bucket's mark, an id that the reader takes after the lock. So a topic
// is notified from the first read on whose snapshot has an xmin that is not below the mark.
//
// # The hub's protocol, in order
//
//	Want, Poll, Backstop or Resync     say which jobs are wanted
//	locks of their buckets are taken
//	Begin                              the jobs to read, with what was read last
//	one statement
//	Finish, Fail or Retry
//
// The lists of accounts are polled: PollLists, BeginLists, one statement, FinishLists, FailLists or RetryLists. Nothing
// notifies them, so that writers pay nothing for lists.
package bus
