'use client';

import { useEffect, useMemo, useRef, useSyncExternalStore } from 'react';
import { useQueryClient } from '@tanstack/react-query';
import { isTerminal } from './protocol.js';
import { mirror } from './query.js';
import { idleStore, jobStore } from './share.js';
import { connecting, idle, type JobState, type WatchOptions } from './watch.js';

export interface UseJobProgressOptions extends WatchOptions {
  /** Where the API is; '' is the page's own origin. */
  baseUrl?: string | undefined;
  /** Called once for each time that the job is seen to have completed. */
  onComplete?: ((job: JobState) => void) | undefined;
  /** Called once for each time that the job is seen to have failed. */
  onFailed?: ((job: JobState) => void) | undefined;
}

/**
 * Shows a job as it is now, from its first state to its last. The entry `['job', jobId]` of the query cache gets its
 * progress and status, too. `null` watches nothing.
 */
export function useJobProgress(jobId: string | null, options: UseJobProgressOptions = {}): JobState {
  const client = useQueryClient();
  const { baseUrl = '', EventSource, withCredentials, heartbeatInterval, fetch } = options;
  const store = useMemo(
    () =>
      jobId === null
        ? idleStore
        : jobStore(`${baseUrl}/api/jobs/${encodeURIComponent(jobId)}/progress`, { EventSource, withCredentials, heartbeatInterval, fetch }),
    [jobId, baseUrl, EventSource, withCredentials, heartbeatInterval, fetch],
  );
  const state = useSyncExternalStore(store.subscribe, store.getState, () => (jobId === null ? idle : connecting));

  useEffect(() => (jobId === null ? undefined : mirror(client, jobId, store)), [client, jobId, store]);

  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  const told = useRef<string | null>(null); // the job whose end was told
  useEffect(() => {
    if (!isTerminal(state.status)) {
      if (state.status !== null) told.current = null;
    } else if (told.current !== store.key) {
      told.current = store.key;
      if (state.status === 'completed') latest.current.onComplete?.(state);
      else latest.current.onFailed?.(state);
    }
  }, [state, store]);

  return state;
}
