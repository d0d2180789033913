// The TanStack Query cache: a job's entry is the application's, and gets the stream's progress and status.

import { hashKey, QueryObserver, type Query, type QueryClient, type QueryKey } from '@tanstack/react-query';
import type { JobsState, JobState, Store } from './feed.js';
import { isObject, isTerminal, toJob, type Job } from './protocol.js';

/** The key of a job's entry in the query cache. */
export const jobKey = (jobId: string) => ['job', jobId] as const;

/** The key of the entry of the account's list. */
export const jobsKey = ['jobs'] as const;

/** Where jobs are. */
export const jobsUrl = (baseUrl = '') => `${baseUrl.replace(/\/+$/, '')}/api/jobs`;

export interface JobQueryOptions {
  /** Where the API is; without it the page's own origin. */
  baseUrl?: string | undefined;
  withCredentials?: boolean | undefined;
  fetch?: typeof globalThis.fetch | undefined;
}

/** An answer that is not the job. `status` is HTTP's, `code` the server's. */
export class JobRequestError extends Error {
  readonly status: number;
  readonly code: string | undefined;
  constructor(status: number, problem: { code?: string; detail?: string } | null) {
    super(problem?.detail ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem?.code;
  }
}

/** What `useQuery` and `prefetchQuery` take. Written out, so that every version of TanStack Query 5 finds the type of the data. */
export interface JobQuery {
  queryKey: ReturnType<typeof jobKey>;
  queryFn: (context: { signal?: AbortSignal }) => Promise<Job>;
  retry: (failures: number, error: Error) => boolean;
}

/**
 * For `useQuery` and `prefetchQuery`: the job's state as JSON. It does without a stream, with polling for example. On a
 * server baseUrl must be absolute.
 */
export function jobQueryOptions(jobId: string, options: JobQueryOptions = {}): JobQuery {
  return {
    queryKey: jobKey(jobId),
    queryFn: async ({ signal }) => {
      const response = await (options.fetch ?? fetch)(`${jobsUrl(options.baseUrl)}/${encodeURIComponent(jobId)}`, {
        credentials: options.withCredentials ? 'include' : 'same-origin',
        headers: { Accept: 'application/json' },
        ...(signal && { signal }),
      });
      const body = await response.json().catch(() => null);
      const job = response.ok ? toJob(body) : null;
      if (!job) throw new JobRequestError(response.status, body);
      return job;
    },
    retry: (failures, error) => {
      const { status = 500 } = error as Partial<JobRequestError>;
      return failures < 3 && (status >= 500 || status === 429);
    },
  };
}

/** The row with what is live of its job; itself if that is in it, or it is no row. */
function withLive(row: unknown, state: JobState | undefined): unknown {
  const live = Object.entries({ progress: state?.progress, status: state?.status }).filter(([, value]) => value);
  return isObject(row) && !Array.isArray(row) && live.some(([key, value]) => row[key] !== value) ? { ...row, ...Object.fromEntries(live) } : row;
}

/** Keeps the entry of a job up to date with its stream, until the returned function is called. */
export const mirrorJob = (client: QueryClient, queryKey: QueryKey, store: Store<JobState>): (() => void) =>
  mirror(client, queryKey, store, (data, state) => withLive(data ?? state.job, state), true);

const made = new WeakMap<object, unknown>(); // lists that nobody else makes, and of which jobs

/** Keeps the entry of the account's list up to date with its stream, until the returned function is called. */
export const mirrorJobs = (client: QueryClient, queryKey: QueryKey, store: Store<JobsState>): (() => void) =>
  mirror(client, queryKey, store, (data, { jobs, connectionState }) => {
    if (data === undefined || made.has(data as object)) {
      if (connectionState === 'connecting' || (data && made.get(data) === jobs)) return data;
      const list = [...jobs.values()].map((state) => withLive({ ...state.job, error: state.error }, state));
      made.set(list, jobs);
      return list;
    }
    const rows = Array.isArray(data) && data.map((row) => withLive(row, jobs.get(row?.id)));
    return rows && rows.some((row, i) => row !== data[i]) ? rows : data;
  });

/**
 * Keeps an entry up to date. `merge` returns what stands there, undefined if nobody has made it, with what is live; what is
 * not ours to change stays as it is.
 */
function mirror<State extends JobState | JobsState>(
  client: QueryClient,
  queryKey: QueryKey,
  store: Store<State>,
  merge: (data: unknown, state: State) => unknown,
  mayDoubt = false,
): () => void {
  // Observed, so that the entry is not collected; without a function of its own, the application's stays in use.
  const stopObserving = new QueryObserver(client, { queryKey, enabled: false }).subscribe(() => {});
  const cache = client.getQueryCache();
  const hash = hashKey(queryKey);
  let said = ''; // by the stream
  let asked = ''; // what it had said when the application's request was sent
  let doubted = false; // the application's answer, which the stream is asked about

  const write = () => {
    const query = cache.get(hash);
    const { data, fetchStatus } = query?.state ?? {};
    const empty = data === undefined;
    // Half an entry would be taken for a whole one: the application's query is waited for.
    if (!query || (empty && (fetchStatus !== 'idle' || query.options.queryFn))) return;
    doubted = false;
    const now = merge(data, store.getState());
    // All else stays as it was: how old the rest is, whether it is to be fetched, and why it could not be. A query of the
    // application's that comes later fetches.
    if (now && now !== data) query.setState({ ...query.state, ...(empty && { status: 'success', isInvalidated: true }), data: now });
  };

  const listen = () => {
    const state = store.getState();
    const states: JobState[] = 'jobs' in state ? [...state.jobs.values()] : [state as JobState];
    const now = JSON.stringify(states.map(({ job, progress, status, error }) => [job, progress, status, error]));
    const isNew = now !== said;
    said = now;
    if (isNew || (doubted && ['open', 'closed'].includes(state.connectionState))) write();
  };
  const stopListening = store.subscribe(listen);
  listen();

  const stopGuarding = cache.subscribe(({ type, query, action }: { type: string; query: Query; action?: { type: string; manual?: boolean } }) => {
    if (type !== 'updated' || query.queryHash !== hash) return;
    const answered = action!.type === 'success' && !action!.manual;
    if (action!.type === 'fetch') asked = said;
    if (!answered && action!.type !== 'setState') return;
    const { connectionState, status } = store.getState() as JobState;
    const answer = (query.state.data as Partial<Job> | undefined)?.status;
    if (mayDoubt && answered && asked === said && status && answer && isTerminal(answer) !== isTerminal(status)) {
      doubted = true;
      store.reconnect(); // it has ended, and the stream is dead, or it was started again
    } else if (connectionState === 'open' || asked !== said || !answered) {
      write(); // it is older than what the stream has said since, or from a copy that lags behind
    }
  });

  return () => {
    stopGuarding();
    stopListening();
    stopObserving();
  };
}
