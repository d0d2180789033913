export { useJobProgress, type JobProgress, type UseJobProgressOptions } from './hook.js';
export { jobKey, jobQueryOptions, JobRequestError, type JobQuery, type JobQueryOptions } from './query.js';
export {
  watchJob,
  type ConnectionError,
  type ConnectionState,
  type EventSourceConstructor,
  type EventSourceLike,
  type JobState,
  type JobWatch,
  type WatchOptions,
} from './watch.js';
export { isTerminal, type Item, type Job, type JobStatus, type JobView, type Progress } from './protocol.js';
