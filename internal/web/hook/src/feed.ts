// The jobs that a page shows, by as few streams as there can be.

import { attempt, closed, connecting, idle, openConnection, type Connection, type ConnectionError, type ConnectionOptions } from './connection.js';
import { gone, isTerminal, next, nothing, withStatus, type JobEvent, type JobView } from './protocol.js';

/** A job as it is shown, and how its stream is. */
export interface JobState extends JobView, Connection {}

/** Jobs as they are shown, and how their stream is. */
export interface JobsState extends Connection {
  /** By id: those that were named in their order, or the account's, newest first. */
  jobs: ReadonlyMap<string, JobState>;
}

export interface WatchOptions extends ConnectionOptions {
  /** What is shown of a job until the server says more. */
  initial?: Partial<JobView> | undefined;
}

/** What components subscribe to: the stream is open for as long as somebody does. */
export interface Store<State> {
  subscribe(listener: () => void): () => void;
  /** Calls the listener for as long as somebody else subscribes. */
  listen(listener: () => void): () => void;
  getState(): State;
  /** Opens the stream anew. */
  reconnect(): void;
}

/** A job that is watched. */
interface Watched {
  id: string;
  view: JobView;
  link: Link;
  /** The stream has named it, and has not sent it. */
  missing: boolean;
  /** Runs out when the server has left it out for too long. */
  absent?: ReturnType<typeof setTimeout> | undefined;
  /** There is nothing more to come: it has ended, or can't be watched. */
  end?: Connection | undefined;
  /** As it is shown; null when that is another. */
  state: JobState | null;
}

/** A stream of at most 100 jobs. */
type Link = ReturnType<typeof openConnection>;

export type Feed = ReturnType<typeof openFeed>;

const mostJobs = 100; // of a stream; the server has no more
const longestQuery = 6_000; // characters in the URL of a stream: many proxies take 8,000
const notifyInterval = 50; // ms between notifications
const notFoundTimeout = 10_000; // ms: a job that is not there may be about to be inserted

/** Subscribed to in place of an id: the account's list. */
export const list = '';

const refused = (connectionError: ConnectionError): Connection => ({ ...closed, connectionError });
const notFound = refused({ code: 'job_not_found', message: 'There is no such job, or it is not yours.', status: 404 });

const query = (ids: string[]) => `${new URLSearchParams(ids.map((id) => ['id', id]))}`;
const isUUID = /^[\da-f-]{36}$/;

const feeds = new Map<string, Feed>();

/**
 * The jobs that the page watches at the URL, `…/api/jobs/progress`: those that are named, or the account's list. One for all
 * options that make no other stream; of functions it counts only whether there are any.
 */
export function feedAt(url: string, named: boolean, { withCredentials, pauseWhenHidden, EventSource, fetch }: ConnectionOptions): Feed {
  const key = [url, named, !!withCredentials, !!pauseWhenHidden, EventSource ? (EventSource.key ?? true) : '', !!fetch].join(' ');
  let feed = feeds.get(key);
  if (!feed) feeds.set(key, (feed = openFeed(url, named)));
  return feed;
}

export function openFeed(url: string, named: boolean) {
  const watched = new Map<string, Watched>();
  const users = new Map<string, number>(); // by id
  const links = new Map<Link, number>(); // jobs in the URL of each
  const listeners = new Map<() => void, () => WatchOptions>();
  let deletedCompleted = false; // what it means that a row is deleted
  let state: JobsState | null = null;
  let lastNotified = 0;
  let timer: ReturnType<typeof setTimeout> | undefined; // until the next notification

  const notify = () => {
    clearTimeout(timer);
    timer = undefined;
    lastNotified = Date.now();
    [...listeners.keys()].forEach(attempt);
  };
  const notifySoon = () => {
    state = null;
    timer ??= setTimeout(notify, Math.min(lastNotified + notifyInterval - Date.now(), notifyInterval));
  };

  /** Options of the last component; of all, one that renews credentials. */
  const latest = () => {
    const all = [...listeners.values()].map((options) => options());
    return { ...all.at(-1), onUnauthorized: all.find(({ onUnauthorized }) => onUnauthorized)?.onUnauthorized };
  };

  const of = (link: Link) => [...watched.values()].filter((one) => one.link === link);
  const put = (one: Watched, view: JobView, end?: Connection) => {
    Object.assign(one, { view, end, state: null });
    notifySoon();
    settle(one.link);
  };
  /** A stream of which all jobs have ended is not needed any more. */
  const settle = (link: Link) => {
    if (named && of(link).every(({ end }) => end)) link.end(link.getState().connectionError);
  };
  const add = (id: string, link: Link, initial?: Partial<JobView>) => {
    const one: Watched = { id, link, view: { ...nothing, ...initial, job: null }, missing: false, state: null };
    watched.set(id, one);
    return one;
  };
  const remove = ({ id, absent }: Watched) => {
    clearTimeout(absent);
    watched.delete(id);
    notifySoon();
  };
  /** Those of the id. The server writes UUIDs in lower case. */
  const find = (id: string) => {
    const uuid = isUUID.test(id);
    return [...watched.values()].filter((one) => one.id === id || (uuid && one.id.toLowerCase() === id));
  };

  /** Takes in an event of the stream. */
  const apply = (link: Link, event: JobEvent) => {
    const id = `${event.jobId}`;
    if (!named && event.type === 'job' && !watched.has(id)) add(id, link);
    for (const one of find(id)) {
      if (event.type === 'removed') {
        leave(one, false);
        continue;
      }
      if (!one.view.job && event.type !== 'job') continue; // of a stream from before, and less than the whole
      clearTimeout(one.absent);
      one.absent = undefined;
      one.missing = false;
      const view = next(one.view, event);
      put(one, view, isTerminal(view.status) ? closed : undefined);
    }
    if (event.type === 'status') notify(); // each is shown: a job may run for less than a notification takes
  };

  /** All that are there were sent. */
  const sync = (link: Link, completed: boolean) => {
    deletedCompleted = completed;
    for (const one of of(link)) if (one.missing) leave(one, completed);
  };

  /** The job is not there. */
  const leave = (one: Watched, completed: boolean) => {
    const { view } = one;
    if (!named) remove(one);
    else if (one.end)
      return; // what it came to is shown
    else if (!view.job) one.absent ??= setTimeout(giveUp, notFoundTimeout, one);
    else if (completed) put(one, withStatus(view, 'completed'), closed);
    else put(one, gone(view), notFound);
  };
  const giveUp = (one: Watched) => {
    one.absent = undefined;
    if (['open', 'polling'].includes(one.link.getState().connectionState)) put(one, one.view, notFound);
    else one.absent = setTimeout(giveUp, notFoundTimeout, one); // nobody can say so now
  };

  const begin = (link: Link) => {
    for (const one of of(link)) one.missing = true;
  };

  const open = () => {
    const link: Link = openConnection(
      {
        url() {
          if (!named) return url;
          // Those that have ended, too: they may be started again, which is seen while the others run.
          const asked = of(link).filter(({ end }) => end?.connectionError?.status !== 400);
          links.set(link, asked.length);
          return asked.every(({ end }) => end) ? '' : `${url}?${query(asked.map(({ id }) => id))}`;
        },
        begin: () => begin(link),
        receive(data, type) {
          let event: JobEvent;
          try {
            event = JSON.parse(data);
          } catch {
            return; // it is none
          }
          if (type === 'synced') sync(link, event.deleted === 'completed');
          else if (event) apply(link, event);
        },
        answer(jobs) {
          for (const job of jobs) apply(link, { type: 'job', jobId: job.id, job });
          sync(link, deletedCompleted);
        },
        refuse(ids, error) {
          for (const one of ids.flatMap(find)) put(one, one.view, refused(error));
        },
        changed() {
          for (const one of of(link)) one.state = null;
          notifySoon();
        },
      },
      latest,
    );
    links.set(link, 0);
    return link;
  };

  const show = ({ view, end, link }: Watched): JobState => {
    const now = link.getState();
    return { ...view, ...(end ?? (view.job || ['reconnecting', 'closed'].includes(now.connectionState) ? now : connecting)) };
  };

  /** Begins to watch a job, or the list. */
  const join = (id: string, initial?: Partial<JobView>) => {
    const hasRoom = (link: Link) => of(link).length < mostJobs && query([id, ...of(link).map(({ id }) => id)]).length < longestQuery;
    const link = [...links.keys()].find(hasRoom) ?? open();
    if (id) add(id, link, initial);
    link.reconnectSoon();
  };

  /** Ends it, if nobody watches it. */
  const part = (id: string) => {
    if (users.get(id)) return;
    users.delete(id);
    const one = watched.get(id);
    if (one) remove(one);
    for (const [link, count] of links) {
      const { length } = of(link);
      if (named ? !length : !users.size) {
        links.delete(link);
        link.close();
        of(link).forEach(remove);
      } else {
        settle(link);
        if (2 * length < count && of(link).some(({ end }) => !end)) link.reconnectSoon(); // else the others need not be sent again
      }
    }
  };

  const getState = (): JobsState => {
    if (!state) {
      const jobs = [...watched.values()].map((one) => [one.id, (one.state ??= show(one))] as const);
      const age = ([, { job }]: (typeof jobs)[0]) => Date.parse(job?.createdAt ?? '') || 0;
      state = { ...([...links.keys()][0]?.getState() ?? connecting), jobs: new Map(named ? jobs : jobs.sort((a, b) => age(b) - age(a))) };
    }
    return state;
  };

  const listen = (options: () => WatchOptions, listener: () => void) => {
    listeners.set(listener, options);
    return () => {
      listeners.delete(listener);
    };
  };

  return {
    getState,
    listen,
    /** The state of some jobs, in order. */
    pick(ids: readonly string[]): JobsState {
      const { jobs } = getState();
      const states = new Map(ids.map((id) => [id, jobs.get(id) ?? { ...nothing, ...connecting }]));
      const live = ids.find((id) => states.get(id)!.connectionState !== 'closed');
      const now = live !== undefined ? (watched.get(live)?.link.getState() ?? connecting) : ids.length ? closed : idle;
      return { ...now, jobs: states };
    },
    /** Watches jobs, or the list, until the returned function is called. */
    subscribe(ids: readonly string[], options: () => WatchOptions, listener: () => void) {
      const silence = listen(options, listener);
      for (const id of ids) {
        const one = watched.get(id);
        if (!users.has(id)) join(id, options().initial);
        else if (one?.end) {
          put(one, one.view); // it may have been started again
          one.link.reconnectSoon();
        }
        users.set(id, (users.get(id) ?? 0) + 1);
      }
      return () => {
        silence();
        for (const id of ids) {
          users.set(id, users.get(id)! - 1);
          // Not at once: StrictMode, and a component that takes another's place, come again in the same breath.
          queueMicrotask(() => part(id));
        }
      };
    },
    /** Opens the streams anew, also after the end of these jobs. */
    reconnect(ids: readonly string[]) {
      for (const id of ids) {
        const one = watched.get(id);
        if (one) put(one, one.view);
      }
      for (const [link] of links) if (!named || of(link).some(({ id }) => ids.includes(id))) link.reconnect();
    },
  };
}

/** The store of a job. */
export function jobStore(feed: Feed, id: string, options: () => WatchOptions): Store<JobState> {
  const before: JobState = { ...nothing, ...connecting, ...options().initial }; // it is watched
  return {
    subscribe: (listener) => feed.subscribe([id], options, listener),
    listen: (listener) => feed.listen(options, listener),
    getState: () => feed.getState().jobs.get(id) ?? before,
    reconnect: () => feed.reconnect([id]),
  };
}
