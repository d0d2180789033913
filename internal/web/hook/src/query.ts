// The TanStack Query cache: a job's entry is the application's, and gets the stream's progress and status.

import { hashKey, QueryObserver, type Query, type QueryClient, type QueryKey, type QueryState } from '@tanstack/react-query';
import { isObject, isTerminal, toJob, type Job, type JobStatus, type Progress } from './protocol.js';
import { share, type JobStore, type SharedBy } from './share.js';
import { askState, type WatchOptions } from './watch.js';

/** The key of a job's entry in the query cache. */
export const jobKey = (jobId: string) => ['job', jobId] as const;

/** Where the job's state is. */
export const jobUrl = (baseUrl = '', jobId: string) => `${baseUrl.replace(/\/+$/, '')}/api/jobs/${encodeURIComponent(jobId)}`;

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
      const response = await (options.fetch ?? fetch)(jobUrl(options.baseUrl, jobId), {
        credentials: options.withCredentials ? 'include' : 'same-origin',
        headers: { Accept: 'application/json' },
        ...(signal && { signal }),
      });
      const body = await response.json().catch(() => null);
      const job = response.ok ? toJob(body, jobId) : null;
      if (!job) throw new JobRequestError(response.status, body);
      return job;
    },
    retry: (failures, error) => {
      const { status = 500 } = error as Partial<JobRequestError>;
      return failures < 3 && (status >= 500 || status === 429);
    },
  };
}

const mirrors = new WeakMap<QueryClient, SharedBy<() => void>>();

/** Keeps the entry of a job up to date with its stream, until the returned function is called. */
export function mirror(client: QueryClient, queryKey: QueryKey, store: JobStore, options: () => WatchOptions): () => void {
  let ofClient = mirrors.get(client);
  if (!ofClient) mirrors.set(client, (ofClient = new Map()));
  return share(ofClient, `${store.key} ${hashKey(queryKey)}`, () => begin(client, queryKey, store, options), (stop) => stop()).release;
}

function begin(client: QueryClient, queryKey: QueryKey, store: JobStore, options: () => WatchOptions): () => void {
  // Observed, so that the entry is not collected; without a function of its own, the application's stays in use.
  const stopObserving = new QueryObserver(client, { queryKey, enabled: false }).subscribe(() => {});
  const cache = client.getQueryCache();
  const hash = hashKey(queryKey);
  const own = () => cache.get(hash);
  let progress: Progress | null = null;
  let status: JobStatus | null = null;
  let version = 0; // of what the stream said
  let asked = 0; // the version when the application's request was sent
  let writing = false;
  let doubted = false; // the application's answer, which the stream is asked about
  let filling = false;
  const life = new AbortController();

  const write = () => {
    const query = own();
    if (!query || (!progress && !status)) return;
    const { data, fetchStatus } = query.state;
    if (data === undefined && fetchStatus === 'idle' && !query.options.queryFn) void fill();
    // Half an entry would be taken for a whole one: the application's query is waited for. And what is no object is not ours
    // to change.
    if (isObject(data) && !Array.isArray(data)) put(query, data);
  };

  /** All that is not ours stays as it was: how old the rest is, whether it is to be fetched, and why it could not be. */
  const put = (query: Query, data: object, change?: Partial<QueryState>) => {
    writing = true;
    doubted = false;
    query.setState({ ...query.state, ...change, data: { ...data, ...(progress && { progress }), ...(status && { status }) } });
    writing = false;
  };

  /** Makes an entry where nobody else does. */
  const fill = async () => {
    if (filling) return;
    filling = true;
    const answer = await askState(store.url, options(), life.signal);
    filling = false;
    const query = own();
    if (life.signal.aborted || !query || !('job' in answer) || query.state.data !== undefined || query.options.queryFn) return;
    put(query, answer.job, { status: 'success', isInvalidated: true }); // the application's query, when it comes, fetches
  };

  const listen = () => {
    const state = store.getState();
    const news = state.progress !== progress || state.status !== status;
    ({ progress, status } = state);
    if (news) version++;
    if (news || (doubted && ['open', 'closed'].includes(state.connectionState))) write();
  };
  const stopListening = store.subscribe(listen);
  listen();

  const stopGuarding = cache.subscribe((event) => {
    if (writing || event.type !== 'updated' || event.query.queryHash !== hash) return;
    const { type } = event.action;
    if (type === 'fetch') asked = version;
    if ((type !== 'success' || event.action.manual) && type !== 'setState') return;
    const { connectionState } = store.getState();
    const { data } = event.query.state;
    const answer = isObject(data) && (data.status as JobStatus);
    if (type === 'success' && status && answer && asked === version && isTerminal(answer) !== isTerminal(status)) {
      doubted = true;
      store.reconnect(); // it has ended, and the stream is dead, or it was started again
    } else if (connectionState === 'open' || asked !== version || type === 'setState') {
      write(); // it is older than what the stream has said since, or from a copy that lags behind
    }
  });

  return () => {
    life.abort();
    stopGuarding();
    stopListening();
    stopObserving();
  };
}
