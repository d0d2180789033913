// Without React: jobs as stores.

import { attempt, closed, type ConnectionOptions } from './connection.js';
import { feedAt, jobStore, list, type JobsState, type JobState, type Store, type WatchOptions } from './feed.js';

/** Something that is watched. */
export interface Watch<State> {
  getState(): State;
  /** Calls the listener after changes, at most 20 times a second, until the returned function is called. */
  subscribe(listener: () => void): () => void;
  /** Opens the stream anew, also after its end: a job may have been started again. */
  reconnect(): void;
  /** Ends the watch. It can't be used again. */
  close(): void;
}

/**
 * Watches the job at the URL, `/api/jobs/{id}/progress`, until it has ended: its stream comes back by itself after whatever
 * happens to server, network or page. Jobs that a page watches with the same options share streams, of up to 100 jobs at
 * `/api/jobs/progress`. A function as options is asked for the latest.
 */
export function watchJob(url: string, options: WatchOptions | (() => WatchOptions) = {}): Watch<JobState> {
  const latest = latestOf(options);
  const [, path, id] = /^(.*)\/([^/?]+)\/progress(?:\?|$)/.exec(url) ?? [];
  if (!id) throw new TypeError(`${url} is not the stream of a job: that is /api/jobs/{id}/progress`);
  return begin(jobStore(feedAt(`${path}/progress`, true, latest()), decodeURIComponent(id), latest));
}

/**
 * Watches many jobs: at the URL `/api/jobs/progress` the account's list, and with `?id=A&id=B` those jobs, until all have
 * ended.
 */
export function watchJobs(url: string, options: ConnectionOptions | (() => ConnectionOptions) = {}): Watch<JobsState> {
  const latest = latestOf(options);
  const [path, query] = url.split('?');
  const ids = new URLSearchParams(query).getAll('id').filter(Boolean);
  const named = ids.length > 0;
  const feed = feedAt(path!, named, latest());
  return begin({
    subscribe: (listener) => feed.subscribe(named ? ids : [list], latest, listener),
    listen: (listener) => feed.listen(latest, listener),
    getState: () => (named ? feed.pick(ids) : feed.getState()),
    reconnect: () => feed.reconnect(ids),
  });
}

const latestOf = <T extends object>(options: T | (() => T)): (() => T) => (typeof options === 'function' ? (options as () => T) : () => options);

/** Watches from now on. */
function begin<State extends object>(store: Store<State>): Watch<State> {
  const listeners = new Set<() => void>();
  let last: State | undefined; // after close
  let notified: State | undefined;
  const release = store.subscribe(() => {
    const state = store.getState();
    if (state === notified) return; // another job of the stream has changed
    notified = state;
    [...listeners].forEach(attempt);
  });
  return {
    getState: () => last ?? store.getState(),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reconnect: () => last ?? store.reconnect(),
    close() {
      last ??= { ...store.getState(), ...closed };
      listeners.clear();
      release();
    },
  };
}
