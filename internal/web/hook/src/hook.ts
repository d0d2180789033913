'use client';

import { useEffect, useMemo, useRef, useSyncExternalStore } from 'react';
import { hashKey, useQueryClient, type QueryKey } from '@tanstack/react-query';
import { attempt, idle, type ConnectionError, type ConnectionOptions } from './connection.js';
import { feedAt, jobStore, list, type JobsState, type JobState, type Store } from './feed.js';
import { fromJob, isTerminal, nothing, toJob } from './protocol.js';
import { jobKey, jobsKey, jobsUrl, mirrorJob, mirrorJobs } from './query.js';

interface HookOptions extends ConnectionOptions {
  /** Where the API is; without it the page's own origin. */
  baseUrl?: string | undefined;
  /** `false` leaves the query cache alone. */
  mirror?: boolean | undefined;
}

export interface UseJobProgressOptions extends HookOptions {
  /** The job's entry in the query cache, `['job', jobId]`. */
  queryKey?: QueryKey | undefined;
  /** Called when the job was seen to complete: once, and not for a job that had ended before. */
  onComplete?: ((job: JobState) => void) | undefined;
  /** Called when the job was seen to fail: once, and not for a job that had ended before. */
  onFailed?: ((job: JobState) => void) | undefined;
  /** Called once when the job has ended, also if it had before. */
  onSettled?: ((job: JobState) => void) | undefined;
}

export interface UseJobsOptions extends HookOptions {
  /** The list's entry in the query cache, `['jobs']`. */
  queryKey?: QueryKey | undefined;
}

/** A job as it is shown. */
export interface JobProgress extends JobState {
  /** Opens the stream anew, for a button to try again. */
  reconnect: () => void;
}

/** Jobs as they are shown. */
export interface Jobs extends Omit<JobsState, 'connectionError'> {
  /** Why they can't be watched. */
  error: ConnectionError | null;
  /** Opens the stream anew, for a button to try again. */
  reconnect: () => void;
}

const idleState: JobState = { ...nothing, ...idle };
const idleStore: Store<JobState> = { subscribe: () => () => {}, listen: () => () => {}, getState: () => idleState, reconnect: () => {} };

/** What both hooks need. The options may be new at each render: the latest count. */
function useFeed<Options extends HookOptions>(options: Options, named: boolean) {
  const client = useQueryClient();
  const ref = useRef(options);
  useEffect(() => {
    ref.current = options;
  });
  return {
    client,
    latest: () => ref.current,
    feed: feedAt(`${jobsUrl(options.baseUrl)}/progress`, named, options),
    mirrored: options.mirror !== false,
  };
}

/**
 * Shows a job as it is now, from its first state to its last. Its entry of the query cache gets its progress and status,
 * too. All jobs of a page come by one stream. Without an id it watches nothing.
 */
export function useJobProgress(jobId: string | null | undefined, options: UseJobProgressOptions = {}): JobProgress {
  const { client, latest, feed, mirrored } = useFeed(options, true);
  const { queryKey = jobKey(jobId ?? '') } = options;
  const entry = hashKey(queryKey);
  const store = useMemo(
    () =>
      jobId
        ? jobStore(feed, jobId, () => {
            const cached = toJob(client.getQueryCache().get(entry)?.state.data);
            return { ...latest(), ...(cached && { initial: fromJob(nothing, cached) }) };
          })
        : idleStore,
    [client, feed, jobId, entry],
  );
  const state = useSyncExternalStore(store.subscribe, store.getState, store.getState);

  useEffect(() => {
    if (mirrored && jobId) return mirrorJob(client, queryKey, store);
  }, [client, mirrored, entry, store]);

  const ends = useRef(new Map<unknown, boolean>()); // by job: whether the end of one that was seen to run was reported
  useEffect(() => {
    const { status } = state;
    const ended = isTerminal(status);
    const reported = ends.current.get(jobId);
    if (!status || (reported && ended)) return;
    ends.current.set(jobId, ended);
    if (!ended) return;
    const { onComplete, onFailed, onSettled } = latest();
    if (reported === false) attempt(() => (status === 'completed' ? onComplete : onFailed)?.(state));
    attempt(() => onSettled?.(state));
  }, [state, jobId]);

  return useMemo(() => ({ ...state, reconnect: store.reconnect }), [state, store]);
}

/**
 * Shows many jobs as they are now: those of the ids, or, without ids, the account's list: its jobs that have not ended, or
 * ended within the last ten minutes, the newest first, and those that begin later. Entries of the query cache get their
 * progress and status, too.
 */
export function useJobs(ids?: readonly string[], options: UseJobsOptions = {}): Jobs {
  const { client, latest, feed, mirrored } = useFeed(options, !!ids);
  const { queryKey = jobsKey } = options;
  const wanted = JSON.stringify(ids?.filter(Boolean) ?? [list]);
  const entry = hashKey(queryKey);
  const store = useMemo(() => {
    const watches = JSON.parse(wanted) as string[];
    return {
      subscribe: (listener: () => void) => feed.subscribe(watches, latest, listener),
      listen: (listener: () => void) => feed.listen(latest, listener),
      getState: feed.getState,
      reconnect: () => feed.reconnect(watches),
    };
  }, [feed, wanted]);
  const all = useSyncExternalStore(store.subscribe, store.getState, store.getState);
  const { connectionError: error, ...state } = useMemo(() => (ids ? feed.pick(JSON.parse(wanted)) : all), [feed, all, wanted]);

  const shown = JSON.stringify([...state.jobs.keys()]);
  useEffect(() => {
    if (!mirrored) return;
    const stops = [...state.jobs.keys()].map((id) => mirrorJob(client, jobKey(id), jobStore(feed, id, latest)));
    if (!ids) stops.push(mirrorJobs(client, queryKey, store));
    return () => stops.forEach((stop) => stop());
  }, [client, mirrored, store, shown, entry]);

  return { ...state, error, reconnect: store.reconnect };
}
