// The TanStack Query cache: the entry ['job', jobId] is the application's, and gets the stream's progress and status.

import { QueryObserver, queryOptions, type QueryClient } from '@tanstack/react-query';
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
    this.name = 'JobRequestError';
    this.status = status;
    this.code = problem?.code;
  }
}

/** For `useQuery` and `prefetchQuery`: the job's state as JSON. It does without a stream, with polling for example. */
export function jobQueryOptions(jobId: string, options: JobQueryOptions = {}) {
  return queryOptions({
    queryKey: jobKey(jobId),
    queryFn: async ({ signal }): Promise<Job> => {
      const response = await (options.fetch ?? fetch)(`${options.baseUrl ?? ''}/api/jobs/${encodeURIComponent(jobId)}`, {
        credentials: options.withCredentials ? 'include' : 'same-origin',
        headers: { Accept: 'application/json' },
        signal,
      });
      const body = await response.json().catch(() => null);
      if (!response.ok) throw new JobRequestError(response.status, body);
      return body as Job;
    },
    retry: (failures, error) => failures < 3 && !(error instanceof JobRequestError && error.status < 500 && error.status !== 429),
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
  const one = ofClient.get(jobId) ?? { users: 0, stop: begin(client, jobId, store) };
  ofClient.set(jobId, one);
  one.users++;
  return () => {
    if (--one.users > 0) return;
    ofClient.delete(jobId);
    one.stop();
  };
}

function begin(client: QueryClient, jobId: string, store: JobStore): () => void {
  const queryKey = jobKey(jobId);
  // Observed, so that the entry is not collected; without a function of its own, the application's stays in use.
  const stopObserving = new QueryObserver(client, { queryKey, enabled: false }).subscribe(() => {});
  const cache = client.getQueryCache();
  let { progress, status } = { progress: null, status: null } as { progress: Progress | null; status: JobStatus | null };
  let version = 0; // of what the stream said
  let asked = 0; // the version when the application's request was sent

  const write = () => {
    const before = cache.find({ queryKey })?.state;
    // The rest of the entry does not become newer by this.
    const updatedAt = before?.dataUpdatedAt ?? 0;
    const change = { ...(progress && { progress }), ...(status && { status }) };
    client.setQueryData<Entry>(queryKey, (old) => ({ ...old, ...change }), { updatedAt });
    if (before?.isInvalidated) cache.find({ queryKey })?.invalidate();
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
    if (event.type !== 'updated' || event.query !== cache.find({ queryKey })) return;
    if (event.action.type === 'fetch') asked = version;
    if (event.action.type !== 'success' || event.action.manual) return;
    const { connectionState } = store.getState();
    if (connectionState === 'open' || asked !== version) {
      write(); // the answer is older than what the stream has said since, or from a copy that lags behind
    } else if (connectionState === 'closed' && isTerminal(status)) {
      const answer = (event.query.state.data as Entry)?.status;
      if (answer && !isTerminal(answer)) store.reconnect(); // the job was started again
    }
  });

  return () => {
    stopGuarding();
    stopListening();
    stopObserving();
  };
}
