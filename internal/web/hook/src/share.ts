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

interface Shared<T> {
  one: T;
  users: number;
}

/** What is shared under each key. */
export type SharedBy<T> = Map<string, Shared<T>>;

/** Finds what others use under the key, or makes it; `release` ends it after the last of them. */
export function share<T>(all: SharedBy<T>, key: string, make: () => T, end: (one: T) => void): { one: T; release: () => void } {
  const shared = all.get(key) ?? { one: make(), users: 0 };
  all.set(key, shared);
  shared.users++;
  return {
    one: shared.one,
    release() {
      shared.users--;
      // Not at once: StrictMode, and a component that takes another's place, come again in the same breath.
      queueMicrotask(() => {
        if (shared.users > 0 || all.get(key) !== shared) return;
        all.delete(key);
        end(shared.one);
      });
    },
  };
}

const watches: SharedBy<{ watch: JobWatch; options: () => WatchOptions }> = new Map();

/** What distinguishes streams: of functions, only whether there are any. */
export const streamKey = (url: string, { withCredentials, pauseWhenHidden, EventSource, fetch, stateUrl }: WatchOptions) =>
  [url, !!withCredentials, !!pauseWhenHidden, !!EventSource, !!fetch, stateUrl].join(' ');

/** The store of the job at the URL. Of the options those of the last component count, whenever they are used. */
export function jobStore(key: string, url: string, options: () => WatchOptions): JobStore {
  const before: JobState = { ...connecting, ...options().initial }; // it is watched
  const watch = () => watches.get(key)?.one.watch;
  return {
    key,
    url,
    subscribe(listener) {
      const { one, release } = share(
        watches,
        key,
        () => {
          const own = { options } as { watch: JobWatch; options: () => WatchOptions };
          own.watch = watchJob(url, () => own.options());
          return own;
        },
        ({ watch }) => watch.close(),
      );
      one.options = options;
      const unsubscribe = one.watch.subscribe(listener);
      return () => {
        unsubscribe();
        release();
      };
    },
    getState: () => watch()?.getState() ?? before,
    reconnect: () => watch()?.reconnect(),
  };
}

export const idleStore: JobStore = { key: '', url: '', subscribe: () => () => {}, getState: () => idle, reconnect: () => {} };
