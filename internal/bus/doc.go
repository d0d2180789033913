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
// A probe is a notification that the reader's session sends and the listener must receive. Until the first probe has come
// back, the session makes no settings, takes no locks and reads nothing. Behind a transaction pooler, settings and locks
// would end up in somebody else's session. And before LISTEN is in force, a change after the read could be missed. Once
// proven, the session reads for as long as it lasts. While the listener is away the bus is degraded, and polls all topics.
//
// # A bucket of jobs
//
//	notified ⇄ polled
//
// A bucket is the last byte of a job's id. While the reader's session holds the bucket's shared advisory lock, writers
// notify changes of its jobs. When a bucket is over budget, the reader releases the lock and polls the jobs.
//
// A bucket whose lock was taken a moment ago is polled, too. A writer may have looked before, found no lock, and not
// committed yet: that change is not notified. Its transaction id is lower than the bucket's mark, which the reader takes
// after the lock. So a topic is notified from the first read whose snapshot has an xmin of at least the mark.
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
