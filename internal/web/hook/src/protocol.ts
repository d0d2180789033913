// The events of a stream, and what a page shows after each of them.

/** How far a job is: counts of its items. total is 0 when there is nothing to show. */
export interface Progress {
  done: number;
  total: number;
  succeeded: number;
  failed: number;
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

/** A job as it is shown. What is not known yet is null. */
export interface JobView {
  progress: Progress | null;
  status: JobStatus | null;
  items: ReadonlyMap<string, Item>;
  /** The item that was begun last and is not finished. */
  currentItem: Item | null;
  /** What went wrong with the job, or why it can't be watched. */
  error: string | null;
}

export const nothing: JobView = { progress: null, status: null, items: new Map(), currentItem: null, error: null };

/** Tells whether a job of this status has ended. */
export const isTerminal = (status: JobStatus | null): boolean => status === 'completed' || status === 'failed';

type JobEvent =
  | ({ type: 'progress' } & Progress)
  | { type: 'status'; status: JobStatus }
  | ({ type: 'item' } & Item)
  | { type: 'error'; message: string };

/** What is shown after an event, as the server sends it. Events of types that a newer server adds change nothing. */
export function next(view: JobView, data: string): JobView {
  let event: JobEvent;
  try {
    event = JSON.parse(data) as JobEvent;
  } catch {
    return view;
  }
  switch (event?.type) {
    case 'progress': {
      const { done, total, succeeded, failed } = event;
      return { ...view, progress: { done, total, succeeded, failed } };
    }
    case 'status':
      return withStatus(view, event.status);
    case 'error':
      return { ...view, error: event.message || null };
    case 'item': {
      const { type: _, ...item } = event;
      const items = new Map(view.items).set(item.itemId, item);
      if (items.size > mostItems) forget(items);
      return { ...view, items, currentItem: item.status === 'in_progress' ? item : current(view, items) };
    }
    default:
      return view;
  }
}

/** Items of a job that are remembered, as the server does. */
const mostItems = 256;

function forget(items: Map<string, Item>): void {
  const finished = [...items.values()].find(({ status }) => status === 'succeeded' || status === 'failed');
  items.delete((finished ?? items.values().next().value!).itemId);
}

/** Nothing is under way in a job that has ended, and what is shown of that run is not the next one's. */
export function withStatus(view: JobView, status: JobStatus): JobView {
  if (isTerminal(status)) return { ...view, status, currentItem: null };
  if (isTerminal(view.status)) return { ...view, status, items: nothing.items, error: null };
  return { ...view, status };
}

function current(view: JobView, items: ReadonlyMap<string, Item>): Item | null {
  const before = view.currentItem && items.get(view.currentItem.itemId);
  if (before?.status === 'in_progress') return before;
  return [...items.values()].filter((item) => item.status === 'in_progress').at(-1) ?? null;
}
