// One stream for each job, however many components watch it.

import { connecting, idle, watchJob, type JobState, type JobWatch, type WatchOptions } from './watch.js';

/** A job's store: the stream is open for as long as somebody subscribes. */
export interface JobStore {
  /** Stores of the same key are of the same stream. */
  key: string;
  subscribe(listener: () => void): () => void;
  getState(): JobState;
  reconnect(): void;
}

interface Entry {
  watch: JobWatch;
  users: number;
}

const entries = new Map<string, Entry>();

/** Objects have no text, so they are numbered. */
const numbers = new WeakMap<object, number>();
let objects = 0;
const number = (object: object | undefined) => {
  if (object && !numbers.has(object)) numbers.set(object, ++objects);
  return object && numbers.get(object);
};

export function jobStore(url: string, options: WatchOptions): JobStore {
  const key = [
    url,
    options.withCredentials,
    number(options.EventSource),
    number(options.fetch),
  ].join(' ');
  return {
    key,
    subscribe(listener) {
      let entry = entries.get(key);
      if (!entry) {
        entry = { watch: watchJob(url, options), users: 0 };
        entries.set(key, entry);
      }
      const used = entry;
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
    getState: () => entries.get(key)?.watch.getState() ?? connecting,
    reconnect: () => entries.get(key)?.watch.reconnect(),
  };
}

export const idleStore: JobStore = { key: '', subscribe: () => () => {}, getState: () => idle, reconnect: () => {} };
