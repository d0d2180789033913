'use client';

import { useEffect, useMemo, useRef, useSyncExternalStore } from 'react';
import { hashKey, useQueryClient, type QueryKey } from '@tanstack/react-query';
import { fromJob, isTerminal, nothing, toJob } from './protocol.js';
import { jobKey, mirror } from './query.js';
import { idleStore, jobStore } from './share.js';
import { attempt, type JobState, type WatchOptions } from './watch.js';

export interface UseJobProgressOptions extends Omit<WatchOptions, 'initial'> {
  /** Where the API is; without it the page's own origin. */
  baseUrl?: string | undefined;
  /** The job's entry in the query cache, `['job', jobId]`. */
  queryKey?: QueryKey | undefined;
  /** `false` leaves the query cache alone. */
  mirror?: boolean | undefined;
  /** Called when the job was seen to complete: once, and not for a job that had ended before. */
  onComplete?: ((job: JobState) => void) | undefined;
  /** Called when the job was seen to fail: once, and not for a job that had ended before. */
  onFailed?: ((job: JobState) => void) | undefined;
  /** Called once when the job has ended, also if it had before. */
  onSettled?: ((job: JobState) => void) | undefined;
}

/** A job as it is shown. */
export interface JobProgress extends JobState {
  /** Opens the stream anew, for a button to try again. */
  reconnect: () => void;
}

/**
 * Shows a job as it is now, from its first state to its last. Its entry of the query cache gets its progress and status,
 * too. Without an id it watches nothing. The options may be new at each render: the latest count.
 */
export function useJobProgress(jobId: string | null | undefined, options: UseJobProgressOptions = {}): JobProgress {
  const client = useQueryClient();
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  const { baseUrl = '', withCredentials, pauseWhenHidden, EventSource, fetch, stateUrl } = options;
  const url = jobId ? `${baseUrl.replace(/\/+$/, '')}/api/jobs/${encodeURIComponent(jobId)}/progress` : null;
  const { queryKey = jobKey(jobId ?? '') } = options;
  const key = hashKey(queryKey);
  const store = useMemo(
    () =>
      url === null
        ? idleStore
        : jobStore(url, () => {
            const cached = toJob(client.getQueryCache().get(key)?.state.data);
            return { ...latest.current, ...(cached && { initial: fromJob(nothing, cached) }) };
          }),
    // Functions by whether there are any: which ones is looked up when they are called.
    [client, url, key, withCredentials, pauseWhenHidden, !EventSource, !fetch, stateUrl],
  );
  const state = useSyncExternalStore(store.subscribe, store.getState, store.getState);

  const mirrored = options.mirror !== false && jobId;
  useEffect(() => {
    if (mirrored) return mirror(client, queryKey, store, () => latest.current);
  }, [client, mirrored, key, store]);

  const settled = useRef(new Map<string, boolean>()); // whether its end was, by the store of a job that was seen
  useEffect(() => {
    const { status, endSeen } = state;
    const before = settled.current.get(store.key);
    if (!isTerminal(status)) {
      if (status || !before) settled.current.set(store.key, false);
    } else if (!before) {
      settled.current.set(store.key, true);
      const { onComplete, onFailed, onSettled } = latest.current;
      if (before === false && endSeen) attempt(() => (status === 'completed' ? onComplete : onFailed)?.(state));
      attempt(() => onSettled?.(state));
    }
  }, [state, store]);

  return useMemo(() => ({ ...state, reconnect: store.reconnect }), [state, store]);
}
