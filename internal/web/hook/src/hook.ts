'use client';

import { useEffect, useMemo, useRef, useSyncExternalStore } from 'react';
import { hashKey, useQueryClient, type QueryKey } from '@tanstack/react-query';
import { fromJob, isTerminal, nothing, toJob } from './protocol.js';
import { jobKey, jobUrl, mirror } from './query.js';
import { idleStore, jobStore, streamKey } from './share.js';
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
  const { baseUrl, queryKey = jobKey(jobId ?? '') } = options;
  const url = `${jobUrl(baseUrl, jobId ?? '')}/progress`;
  const stream = jobId && streamKey(url, options);
  const entry = hashKey(queryKey);
  const store = useMemo(
    () =>
      stream
        ? jobStore(stream, url, () => {
            const cached = toJob(client.getQueryCache().get(entry)?.state.data);
            return { ...latest.current, ...(cached && { initial: fromJob(nothing, cached) }) };
          })
        : idleStore,
    [client, stream, entry],
  );
  const state = useSyncExternalStore(store.subscribe, store.getState, store.getState);

  const mirrored = options.mirror !== false && jobId;
  useEffect(() => {
    if (mirrored) return mirror(client, queryKey, store, () => latest.current);
  }, [client, mirrored, entry, store]);

  const ends = useRef(new Map<string, boolean>()); // by store: whether the end of a job that was seen to run was reported
  useEffect(() => {
    const { status } = state;
    const reported = ends.current.get(store.key);
    if (!status || (reported && isTerminal(status))) return;
    ends.current.set(store.key, isTerminal(status));
    if (!isTerminal(status)) return;
    const { onComplete, onFailed, onSettled } = latest.current;
    if (reported === false) attempt(() => (status === 'completed' ? onComplete : onFailed)?.(state));
    attempt(() => onSettled?.(state));
  }, [state, store]);

  return useMemo(() => ({ ...state, reconnect: store.reconnect }), [state, store]);
}
