// One stream for each job, however many components watch it.

import { connecting, idle, watchJob, type JobState, type JobWatch, type WatchOptions } from './watch.js';

/** A job's store: the stream is open for as long as somebody subscribes. */
export interface JobStore {
  /** Stores of the same key are of the same stream. */
  key: string;
  /** Of the stream. */
  url: string;
  subscribe(listener: () => void): () => void;
  getState(): JobState;
  reconnect(): void;
}

interface Entry {
  watch: JobWatch;
  users: number;
  options: () => WatchOptions; // of who came last
}

const entries = new Map<string, Entry>();

/** The store of the job at the URL. The options are asked for whenever they are used: only the text of the key tells streams apart. */
export function jobStore(url: string, options: () => WatchOptions): JobStore {
  const { withCredentials, pauseWhenHidden, EventSource, fetch, stateUrl } = options();
  const key = [url, !!withCredentials, !!pauseWhenHidden, !!EventSource, !!fetch, stateUrl].join(' ');
  let before: JobState | undefined; // it is watched
  const initial = () => (before ??= { ...connecting, ...options().initial });
  return {
    key,
    url,
    subscribe(listener) {
      let entry = entries.get(key);
      if (!entry) {
        const own: Entry = { watch: undefined as never, users: 0, options };
        own.watch = watchJob(url, () => own.options());
        entries.set(key, (entry = own));
      }
      const used = entry;
      used.options = options;
      used.users++;
      const unsubscribe = used.watch.subscribe(listener);
      return () => {
        unsubscribe();
        used.users--;
        // Not at once: StrictMode, and a component that takes another's place, subscribe again in the same breath.
        queueMicrotask(() => {
          if (used.users > 0 || entries.get(key) !== used) return;
          entries.delete(key);
          used.watch.close();
        });
      };
    },
    getState: () => entries.get(key)?.watch.getState() ?? initial(),
    reconnect: () => entries.get(key)?.watch.reconnect(),
  };
}

export const idleStore: JobStore = { key: '', url: '', subscribe: () => () => {}, getState: () => idle, reconnect: () => {} };
