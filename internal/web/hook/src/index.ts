export { useJobProgress, type UseJobProgressOptions } from './hook.js';
export { jobKey, jobQueryOptions, JobRequestError, type JobQueryOptions } from './query.js';
export {
  watchJob,
  type ConnectionState,
  type EventSourceConstructor,
  type EventSourceLike,
  type Job,
  type JobState,
  type JobWatch,
  type WatchOptions,
} from './watch.js';
export { isTerminal, type Item, type JobStatus, type JobView, type Progress } from './protocol.js';
