// The events of a stream, and what a page shows after each of them.

/** How far a job is: counts of its items. total is 0 when there is nothing to show. */
export interface Progress {
  done: number;
  total: number;
  succeeded: number;
  failed: number;
  /** What is being done. */
  message?: string;
}

/** Applications may have more of them; only `completed` and `failed` end a job. */
export type JobStatus = 'pending' | 'running' | 'completed' | 'failed' | (string & {});

/** The latest that a worker said of one item. */
export interface Item {
  itemId: string;
  itemKind: string;
  status: 'queued' | 'in_progress' | 'succeeded' | 'failed';
  label?: string;
  index?: number;
  count?: number;
  total?: number;
}

/** A job as `GET /api/jobs/{id}` answers. */
export interface Job {
  id: string;
  type: string;
  status: JobStatus;
  progress: Progress;
  error: string | null;
  createdAt: string | null;
  startedAt: string | null;
  completedAt: string | null;
  updatedAt: string | null;
}

/** A job as it is shown. What is not known yet is null. */
export interface JobView {
  progress: Progress | null;
  status: JobStatus | null;
  items: ReadonlyMap<string, Item>;
  /** The item whose status came last, of those that are begun and not finished. */
  currentItem: Item | null;
  /** What went wrong with the job. */
  error: string | null;
  /** The JSON state as it was last sent as a whole: for the type, and the moments. */
  job: Job | null;
}

export const nothing: JobView = { progress: null, status: null, items: new Map(), currentItem: null, error: null, job: null };

/** Reports whether a job of this status has ended. */
export const isTerminal = (status: JobStatus | null | undefined): boolean => status === 'completed' || status === 'failed';

export const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const isText = (value: unknown): value is string => typeof value === 'string' && !!value;
const count = (value: unknown): number => (Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : 0);

const toProgress = (from: Record<string, unknown>): Progress => ({
  done: count(from.done),
  total: count(from.total),
  succeeded: count(from.succeeded),
  failed: count(from.failed),
  ...(isText(from.message) && { message: from.message }),
});

/** The job that a JSON answer is, or null if it is something else. */
export function toJob(answer: unknown): Job | null {
  if (!isObject(answer) || !isText(answer.status) || !isObject(answer.progress)) return null;
  return { ...(answer as unknown as Job), progress: toProgress(answer.progress), error: (answer.error as string) || null };
}

/** What is shown of a job after its JSON state. Another run has other items. */
export function fromJob(view: JobView, job: Job): JobView {
  const { progress, status, error } = job;
  const run = view.job?.startedAt === job.startedAt ? view : nothing;
  return {
    ...withStatus({ ...view, items: run.items, currentItem: run.currentItem }, status),
    progress: progress.total || progress.message || view.progress ? progress : null,
    error,
    job,
  };
}

/** What is shown of a job whose row was deleted, or is somebody else's now. */
export const gone = (view: JobView): JobView => ({ ...view, status: null, currentItem: null, error: 'job no longer exists' });

/** An event of the stream, as far as it is known what it says. */
export type JobEvent = Readonly<Record<string, unknown>>;

/** What is shown after an event of the stream. What is of no known type, or not as it should be, changes nothing. */
export function next(view: JobView, event: JobEvent): JobView {
  switch (event.type) {
    case 'job': {
      const job = toJob(event.job);
      return job ? fromJob(view, job) : view;
    }
    case 'progress':
      return { ...view, progress: toProgress(event) };
    case 'status':
      return isText(event.status) ? withStatus(view, event.status) : view;
    case 'error':
      return { ...view, error: isText(event.message) ? event.message : null };
    case 'item': {
      const { type: _, jobId: __, ...item } = event as unknown as Item & Record<'type' | 'jobId', string>;
      if (!isText(item.itemId) || !isText(item.itemKind) || !isText(item.status)) return view;
      const items = new Map(view.items);
      items.delete(item.itemId); // in the order in which they came
      items.set(item.itemId, item);
      const all = [...items.values()];
      if (all.length > mostItems) items.delete((all.find(({ status }) => status === 'succeeded' || status === 'failed') ?? all[0]!).itemId);
      return { ...view, items, currentItem: all.filter(({ status }) => status === 'in_progress').at(-1) ?? null };
    }
  }
  return view;
}

/** Items of a job that are remembered, as the server does. */
const mostItems = 256;

/** Nothing is under way in a job that has ended, and what is shown of that run is not the next one's. */
export function withStatus(view: JobView, status: JobStatus): JobView {
  if (isTerminal(status)) return { ...view, status, currentItem: null };
  if (isTerminal(view.status)) return { ...view, status, items: nothing.items, error: null };
  return { ...view, status };
}
