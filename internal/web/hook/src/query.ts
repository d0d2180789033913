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

/** What the stream says of a job. */
const live = ({ progress, status }: JobState) => Object.entries({ progress, status }).filter(([, value]) => value);

/** The row with what is live of its job; itself if that is in it, or it is no row. */
function withLive(row: unknown, state: JobState | undefined): unknown {
  const news = state && live(state).filter(([key, value]) => JSON.stringify((row as Record<string, unknown>)?.[key]) !== JSON.stringify(value));
  return news?.length && isObject(row) && !Array.isArray(row) ? { ...row, ...Object.fromEntries(news) } : row;
}

/** The JSON state with what the stream has said since. */
const whole = (state: JobState) => state.job && { ...state.job, ...Object.fromEntries(live(state)), error: state.error };

/** Keeps the entry of a job up to date with its stream, until the returned function is called. */
export const mirrorJob = (client: QueryClient, queryKey: QueryKey, store: Store<JobState>): (() => void) =>
  mirror(client, queryKey, store, whole, withLive, true);

/** Keeps the entry of the account's list up to date with its stream, until the returned function is called. */
export const mirrorJobs = (client: QueryClient, queryKey: QueryKey, store: Store<JobsState>): (() => void) =>
  mirror(
    client,
    queryKey,
    store,
    ({ jobs, connectionState }) => connectionState !== 'connecting' && [...jobs.values()].map(whole),
    (data, { jobs }) => {
      if (!Array.isArray(data)) return data;
      const rows = data.map((row) => withLive(row, jobs.get(row?.id)));
      return rows.some((row, i) => row !== data[i]) ? rows : data;
    },
  );

/** What was written into caches: true if as a whole, because nobody else makes an entry. */
const written = new WeakMap<object, boolean>();

const doubtDistance = 10_000; // milliseconds between doubts

/**
 * Keeps an entry up to date. `make` returns it, if nobody else makes one; `merge` what the application has, with what is live:
 * what is not ours to change stays as it is.
 */
function mirror<State extends JobState | JobsState>(
  client: QueryClient,
  queryKey: QueryKey,
  store: Store<State>,
  make: (state: State) => object | null | false,
  merge: (data: unknown, state: State) => unknown,
  mayDoubt = false,
): () => void {
  // Observed, so that the entry is not collected; without a function of its own, the application's stays in use.
  const observe = () => new QueryObserver(client, { queryKey, enabled: false }).subscribe(() => {});
  let stopObserving = observe();
  const cache = client.getQueryCache();
  const hash = hashKey(queryKey);
  let said = ''; // by the stream
  let asked = ''; // what it had said when the application's request was sent
  let doubted = false; // the application's answer, which the stream is asked about
  let doubtedAt = 0;

  const write = () => {
    const query = cache.get(hash);
    const { data, fetchStatus } = query?.state ?? {};
    const empty = data === undefined;
    // Half an entry would be taken for a whole one: the application's query is waited for.
    if (!query || (empty && (fetchStatus !== 'idle' || query.options.queryFn))) return;
    doubted = false;
    const own = empty || !!written.get(data as object);
    const now = own ? make(store.getState()) : merge(data, store.getState());
    if (!isObject(now) || now === data) return;
    written.set(now, own);
    // All else stays as it was: how old the rest is, whether it is to be fetched, and why it could not be. A query of the
    // application's that comes later fetches.
    query.setState({ ...query.state, ...(empty && { status: 'success', isInvalidated: true }), data: now });
  };

  const listen = () => {
    const state = store.getState();
    const states: JobState[] = 'jobs' in state ? [...state.jobs.values()] : [state as JobState];
    const now = JSON.stringify(states.map(({ job, progress, status, error }) => [job, progress, status, error]));
    const isNew = now !== said;
    said = now;
    if (isNew || (doubted && ['open', 'closed'].includes(state.connectionState))) write();
  };
  const stopListening = store.listen(listen);
  listen();

  const stopGuarding = cache.subscribe(({ type, query, action }: { type: string; query: Query; action?: { type: string; manual?: boolean } }) => {
    if (query.queryHash !== hash) return;
    if (type === 'removed') {
      stopObserving();
      stopObserving = observe();
      return write();
    }
    const { data } = query.state;
    if (type !== 'updated' || (action!.type === 'setState' && written.has(data as object))) return;
    const answered = action!.type === 'success' && !action!.manual;
    if (action!.type === 'fetch') asked = said;
    if (!answered && action!.type !== 'setState') return;
    const { connectionState, status } = store.getState() as JobState;
    const answer = (data as Partial<Job> | undefined)?.status;
    const differs = mayDoubt && answered && asked === said && status && answer && isTerminal(answer) !== isTerminal(status);
    if (differs && Date.now() > doubtedAt + doubtDistance) {
      doubted = true;
      doubtedAt = Date.now();
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
