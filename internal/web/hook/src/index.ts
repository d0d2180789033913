export { useJobProgress, useJobs, type JobProgress, type Jobs, type UseJobProgressOptions, type UseJobsOptions } from './hook.js';
export { jobKey, jobQueryOptions, jobsKey, JobRequestError, type JobQuery, type JobQueryOptions } from './query.js';
export { watchJob, watchJobs, type Watch } from './watch.js';
export type { JobsState, JobState, WatchOptions } from './feed.js';
export type { Connection, ConnectionError, ConnectionOptions, ConnectionState, EventSourceConstructor, EventSourceLike } from './connection.js';
export { isTerminal, type Item, type Job, type JobStatus, type JobView, type Progress } from './protocol.js';
