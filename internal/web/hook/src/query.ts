// The TanStack Query cache: the entry ['job', jobId] is the application's, and gets the stream's progress and status.

import { hashKey, notifyManager, QueryObserver, queryOptions, type QueryClient } from '@tanstack/react-query';
import { isTerminal, type JobStatus, type Progress } from './protocol.js';
import type { JobStore } from './share.js';
import type { Job } from './watch.js';

/** The key of a job's entry in the query cache. */
export const jobKey = (jobId: string) => ['job', jobId] as const;

export interface JobQueryOptions {
  /** Where the API is; '' is the page's own origin. */
  baseUrl?: string | undefined;
  withCredentials?: boolean | undefined;
  fetch?: typeof globalThis.fetch | undefined;
}

/** An answer that is not the job. `status` is HTTP's, `code` the server's. */
export class JobRequestError extends Error {
  readonly status: number;
  readonly code: string | undefined;
  constructor(status: number, problem: { code?: string; detail?: string } | null) {
    super(problem?.detail ?? `the server answers ${status}`);
    this.status = status;
    this.code = problem?.code;
  }
}

/**
 * For `useQuery` and `prefetchQuery`: the job's state as JSON. It does without a stream, with polling for example. With
 * one, the entry may hold progress and status only, until the first answer. On a server baseUrl must be absolute.
 */
export function jobQueryOptions(jobId: string, options: JobQueryOptions = {}) {
  return queryOptions({
    queryKey: jobKey(jobId),
    queryFn: async ({ signal }): Promise<Partial<Job>> => {
      const response = await (options.fetch ?? fetch)(`${options.baseUrl ?? ''}/api/jobs/${encodeURIComponent(jobId)}`, {
        credentials: options.withCredentials ? 'include' : 'same-origin',
        headers: { Accept: 'application/json' },
        signal,
      });
      const body = await response.json().catch(() => null);
      if (!response.ok || !body) throw new JobRequestError(response.status, body);
      return body as Partial<Job>;
    },
    retry: (failures, { status = 500 }: Error & { status?: number }) => failures < 3 && (status >= 500 || status === 429),
  });
}

type Entry = { progress?: Progress; status?: JobStatus } | undefined;

interface Mirror {
  users: number;
  stop(): void;
}

const mirrors = new WeakMap<QueryClient, Map<string, Mirror>>();

/** Keeps the entry of a job up to date with its stream, until the returned function is called. */
export function mirror(client: QueryClient, jobId: string, store: JobStore): () => void {
  let ofClient = mirrors.get(client);
  if (!ofClient) mirrors.set(client, (ofClient = new Map()));
  const one = ofClient.get(store.key) ?? { users: 0, stop: begin(client, jobId, store) };
  ofClient.set(store.key, one);
  one.users++;
  return () => {
    if (--one.users > 0) return;
    ofClient.delete(store.key);
    one.stop();
  };
}

function begin(client: QueryClient, jobId: string, store: JobStore): () => void {
  const queryKey = jobKey(jobId);
  // Observed, so that the entry is not collected; without a function of its own, the application's stays in use.
  const stopObserving = new QueryObserver(client, { queryKey, enabled: false }).subscribe(() => {});
  const cache = client.getQueryCache();
  const hash = hashKey(queryKey);
  let { progress, status } = { progress: null, status: null } as { progress: Progress | null; status: JobStatus | null };
  let version = 0; // of what the stream said
  let asked = 0; // the version when the application's request was sent

  let writing = false;

  const write = () => {
    if (!progress && !status) return;
    const query = cache.get(hash);
    const before = query?.state;
    const change = { ...(progress && { progress }), ...(status && { status }) };
    writing = true;
    notifyManager.batch(() => {
      // All that is not ours stays as it was: how old the rest is, whether it is to be fetched, and why it could not be.
      client.setQueryData<Entry>(queryKey, (old) => ({ ...old, ...change }), { updatedAt: before?.dataUpdatedAt ?? 0 });
      if (before?.status === 'error') query?.setState({ ...query.state, status: 'error', error: before.error });
      if (!before?.data || before.isInvalidated) cache.get(hash)?.invalidate();
    });
    writing = false;
  };

  const listen = () => {
    const state = store.getState();
    if (state.progress === progress && state.status === status) return;
    ({ progress, status } = state);
    version++;
    write();
  };
  const stopListening = store.subscribe(listen);
  listen();

  const stopGuarding = cache.subscribe((event) => {
    if (writing || event.type !== 'updated' || event.query.queryHash !== hash) return;
    const { type } = event.action;
    if (type === 'fetch') asked = version;
    if ((type !== 'success' || event.action.manual) && type !== 'setState') return;
    const { connectionState } = store.getState();
    const answer = (event.query.state.data as Entry)?.status ?? null;
    if (type === 'success' && status && asked === version && isTerminal(answer) !== isTerminal(status)) {
      store.reconnect(); // it has ended, and the stream is dead, or it was started again
    } else if (connectionState === 'open' || asked !== version || type === 'setState') {
      write(); // it is older than what the stream has said since, or from a copy that lags behind
    }
  });

  return () => {
    stopGuarding();
    stopListening();
    stopObserving();
  };
}
