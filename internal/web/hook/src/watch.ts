// One job's stream as a store: no React, no other dependency.

import { fromJob, isTerminal, next, nothing, toJob, type Job, type JobView } from './protocol.js';

/**
 * `idle` nothing to watch · `connecting` the first time · `open` · `reconnecting` the stream is away, what is shown may
 * be old · `polling` the stream is away, and the JSON state is asked for · `degraded` the stream is open, and the server
 * has lost its database · `closed` there is nothing more to come.
 */
export type ConnectionState = 'idle' | 'connecting' | 'open' | 'reconnecting' | 'polling' | 'degraded' | 'closed';

/** Why a job can't be watched, now or at all. */
export interface ConnectionError {
  /**
   * The server's code, `unauthenticated` or `job_not_found` for example, or one of `unreachable` (no answer that may be
   * read: the network, or an origin that is not allowed) and `unexpected_answer` (not of this server: a login page, a proxy).
   */
  code: string;
  message: string;
  /** HTTP's. */
  status?: number;
}

/** A job as it is shown, and how its stream is. */
export interface JobState extends JobView {
  connectionState: ConnectionState;
  /** The stream is open. */
  isConnected: boolean;
  connectionError: ConnectionError | null;
  /** When what is shown was last known to be right, in milliseconds since 1970; null while the stream says so. */
  staleSince: number | null;
}

/** What is used of an EventSource. */
export interface EventSourceLike {
  readonly readyState: number;
  onmessage: ((event: MessageEvent) => unknown) | null;
  onerror: ((event: Event) => unknown) | null;
  addEventListener(type: string, listener: (event: MessageEvent) => unknown): void;
  close(): void;
}

export type EventSourceConstructor = new (url: string, init?: { withCredentials?: boolean }) => EventSourceLike;

export interface WatchOptions {
  /** Another EventSource, one that sends headers for example. */
  EventSource?: EventSourceConstructor | undefined;
  /** Asks for the JSON state; to be set with EventSource, if credentials go in headers. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Send cookies to another origin. */
  withCredentials?: boolean | undefined;
  /** Where the JSON state is; without it the stream's address without `/progress`. */
  stateUrl?: string | undefined;
  /** Until the server says it: within how many milliseconds there is a sign of life (30,000). After two without one the link is dead. */
  heartbeatInterval?: number | undefined;
  /** Called when the credentials are not valid (any more). May renew them: the stream is tried again when its promise is kept. */
  onUnauthorized?: (() => unknown) | undefined;
  /** Give the stream back while nobody sees the page: over HTTP/1.1 a browser opens six, in all tabs together. */
  pauseWhenHidden?: boolean | undefined;
  /** What is shown until the server says more. */
  initial?: Partial<JobView> | undefined;
}

/** A job that is watched. */
export interface JobWatch {
  getState(): JobState;
  /** Calls the listener after changes, at most 20 times a second, until the returned function is called. */
  subscribe(listener: () => void): () => void;
  /** Opens the stream anew, also after its end: the job may have been started again. */
  reconnect(): void;
  /** Ends the watch. It can't be used again. */
  close(): void;
}

const withConnection = (connectionState: ConnectionState): JobState => ({
  ...nothing,
  connectionState,
  isConnected: false,
  connectionError: null,
  staleSince: null,
});

export const idle = withConnection('idle');
export const connecting = withConnection('connecting');

const CLOSED = 2; // EventSource.CLOSED
// In milliseconds:
const breath = 50; // between notifications
const hiccup = 1_000; // what ends sooner is not worth a word
const patience = 2_000; // with a stream that says nothing
const missingFor = 10_000; // a job that is not there may be about to be inserted
const answerTimeout = 10_000;
const shortestPoll = 2_000;
const longestPoll = 15_000;
const longestBackoff = 30_000;
const mostQueued = 500; // events

/** Between 80 and 100 % of it, so that not all come at once. */
const jitter = (milliseconds: number) => milliseconds * (0.8 + Math.random() / 5);

/** An interval that timers can bear, twice. */
const bearable = (milliseconds: unknown): number | undefined =>
  typeof milliseconds === 'number' && milliseconds >= 100 && milliseconds < 2 ** 30 ? milliseconds : undefined;

/** An error of somebody else's, which must not cost more than itself. */
export function attempt(callback: () => unknown): void {
  try {
    callback();
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

/**
 * Watches the job whose stream is at the URL, `/api/jobs/{id}/progress`, from now on: it comes back by itself after
 * whatever happens to server, network or page, and ends when the job ends, or when it must not or can't be watched. A
 * function as options is asked for the latest.
 */
export function watchJob(url: string, options: WatchOptions | (() => WatchOptions) = {}): JobWatch {
  const latest = typeof options === 'function' ? options : () => options;
  const listeners = new Set<() => void>();
  let state: JobState = { ...connecting, ...latest().initial };
  let interval = bearable(latest().heartbeatInterval) ?? 30_000;

  let source: EventSourceLike | null = null;
  let lastEventId = '';
  let events: string[] = []; // that are not shown yet
  let heard = 0; // events altogether
  let lastSign = Date.now(); // of life
  let proven = false; // the stream speaks
  let failures = 0; // of the stream, in a row
  let polls = 0; // in a row
  let missingSince = 0;
  let renewing = false; // onUnauthorized is at work
  let asleep = false; // the page is hidden or left, and the stream given back
  let asking: AbortController | null = null;
  let lastNotified = 0;
  const life = new AbortController(); // until close is called
  const { signal } = life;

  // A timer of each kind, at most.
  const timers: Partial<Record<'notify' | 'stream' | 'say' | 'poll' | 'wake', ReturnType<typeof setTimeout>>> = {};
  const clear = (...kinds: (keyof typeof timers)[]) => {
    for (const kind of kinds) {
      clearTimeout(timers[kind]);
      delete timers[kind];
    }
  };
  const after = (kind: keyof typeof timers, milliseconds: number, run: () => void) => {
    clear(kind);
    if (signal.aborted) return;
    timers[kind] = setTimeout(() => {
      delete timers[kind];
      run();
    }, milliseconds);
  };

  const notify = () => {
    clear('notify');
    lastNotified = Date.now();
    show();
    for (const listener of [...listeners]) attempt(listener);
  };
  const notifySoon = () => {
    if (timers.notify || signal.aborted) return;
    const rest = Math.min(lastNotified + breath - Date.now(), breath);
    if (rest <= 0) notify();
    else after('notify', rest, notify);
  };
  const put = (change: Partial<JobState>) => {
    const connectionState = change.connectionState ?? state.connectionState;
    state = { ...state, ...change, isConnected: connectionState === 'open' || connectionState === 'degraded' };
  };
  const set = (change: Partial<JobState>) => {
    put(change);
    notifySoon();
  };

  /** Takes in what the stream has said. */
  const show = () => {
    if (events.length === 0) return;
    const said = events;
    events = [];
    let over = false;
    put(next(state, said, () => (over = true)));
    if (over) end();
  };

  /** Gives the stream back. */
  const stop = () => {
    show();
    clear('stream', 'say', 'poll', 'wake');
    asking?.abort();
    asking = null;
    source?.close();
    source = null;
    proven = false;
  };

  const end = (change: Partial<JobState> = {}) => {
    stop();
    set({ connectionError: null, staleSince: null, ...change, connectionState: 'closed' });
  };

  /** Something came out of the stream. */
  const hear = (connectionState: ConnectionState = state.connectionState === 'degraded' ? 'degraded' : 'open') => {
    lastSign = Date.now();
    heard++;
    failures = polls = missingSince = 0;
    proven = true;
    clear('say', 'poll', 'wake');
    after('stream', 2 * interval, connect); // two without a sign
    if (connectionState === state.connectionState && !state.connectionError) return;
    set({ connectionState, connectionError: null, staleSince: connectionState === 'open' ? null : (state.staleSince ?? lastSign) });
  };

  /** The stream says nothing: soon that is said, and the JSON state asked for. */
  const doubt = () => {
    proven = false;
    if (!timers.say && ['open', 'degraded'].includes(state.connectionState)) {
      after('say', hiccup, () => set({ connectionState: 'reconnecting', staleSince: lastSign }));
    }
    if (!timers.poll && !asking) after('poll', jitter(patience), poll);
  };

  const connect = () => {
    if (signal.aborted || asleep) return;
    const Source = latest().EventSource ?? globalThis.EventSource;
    source?.close();
    source = null;
    clear('wake');
    doubt();
    if (!Source) {
      after('poll', 0, poll); // there is no other way
      return;
    }
    const opened: EventSourceLike = new Source(address(url, lastEventId), { withCredentials: latest().withCredentials ?? false });
    source = opened;
    // An EventSource that was given up may still have something to say.
    const ours = (listener: (event: MessageEvent) => void) => (event: Event) => {
      if (opened === source) listener(event as MessageEvent);
    };
    opened.onmessage = ours((event) => {
      if (event.lastEventId) lastEventId = event.lastEventId;
      events.push(event.data as string);
      hear();
      if (events.length >= mostQueued) notify();
      else notifySoon();
    });
    opened.addEventListener('heartbeat', ours(({ data }) => {
      attempt(() => (interval = bearable(JSON.parse(data as string).interval) ?? interval));
      hear();
    }));
    opened.addEventListener('bus', ours(({ data }) => hear(String(data).includes('degraded') ? 'degraded' : 'open')));
    opened.onerror = ours(() => {
      show();
      if (opened !== source) return; // the job has ended
      doubt();
      if (opened.readyState !== CLOSED) return; // it comes back by itself
      source = null; // it does not, and does not tell why
      clear('stream');
      void poll();
    });
    after('stream', 2 * interval, connect);
  };

  const reconnect = () => {
    if (signal.aborted) return;
    asleep = false;
    missingSince = failures = 0;
    if (state.connectionState === 'closed') set({ connectionState: 'reconnecting', connectionError: null });
    connect();
  };

  /** Opens the stream again after it was refused, if that is not about to happen. */
  const again = (milliseconds?: number) => {
    if (source || timers.stream) return;
    after('stream', jitter(milliseconds ?? Math.min(1000 * 2 ** failures++, longestBackoff)), connect);
  };

  const poll = async () => {
    clear('poll');
    await ask();
    if (!proven && !asleep && !asking && state.connectionState !== 'closed') {
      after('poll', jitter(Math.min(shortestPoll * 1.5 ** polls++, longestPoll)), poll);
    }
  };

  /** Asks for the JSON state. */
  const ask = async () => {
    const before = heard;
    asking?.abort();
    const mine = (asking = new AbortController());
    const timeout = setTimeout(() => mine.abort(), answerTimeout);
    const answer = await askState(url, latest(), mine.signal);
    clearTimeout(timeout);
    if (mine !== asking) return;
    asking = null;
    if (heard !== before) return; // the stream knows better
    if ('job' in answer) answered(answer.job);
    else if (!proven) await refused(answer.error);
  };

  const answered = (job: Job) => {
    missingSince = 0;
    show();
    const view = fromJob(state, job);
    if (proven) {
      if (!same(view, state)) connect(); // what is shown is older than the row
      return;
    }
    if (isTerminal(job.status)) return end(view);
    set({ ...view, connectionState: 'polling', connectionError: null, staleSince: Date.now() });
    again();
  };

  const refused = async (error: ConnectionError) => {
    const { status, code } = error;
    const deleted = state.status === null && state.error !== null; // the stream has said so
    if (status === 404 && !deleted) {
      missingSince ||= Date.now();
      if (Date.now() - missingSince < missingFor) return again(hiccup); // it may be about to be inserted
    }
    if (status === 404 || ((status === 400 || status === 403) && code !== 'unexpected_answer')) return end({ connectionError: error });
    clear('say');
    set({ connectionState: 'reconnecting', connectionError: error, staleSince: state.staleSince ?? lastSign });
    const { onUnauthorized } = latest();
    if (status === 401 && onUnauthorized && !renewing) {
      renewing = true;
      try {
        await onUnauthorized();
        if (failures++ === 0) after('stream', 0, connect);
      } catch (cause) {
        attempt(() => {
          throw cause;
        });
      } finally {
        renewing = false;
      }
    }
    again();
  };

  // A link that died while the page slept looks open. Timers sleep, too.
  const wake = () => {
    if (state.connectionState === 'closed' || signal.aborted) return;
    if (document.visibilityState === 'hidden') {
      if (latest().pauseWhenHidden) sleep();
      return;
    }
    if (asleep || !source) {
      asleep = false;
      connect();
    } else {
      after('wake', patience, connect); // unless it shows that it lives
    }
    void poll();
  };
  const sleep = () => {
    if (state.connectionState === 'closed') return;
    asleep = true;
    stop();
    set({ connectionState: 'reconnecting', staleSince: state.staleSince ?? lastSign });
  };
  const online = () => {
    if (state.connectionState !== 'closed' && !asleep) connect();
  };
  const focus = () => {
    if (state.connectionError && !source) online(); // the user may have signed in elsewhere
  };
  const { addEventListener, document: page } = globalThis;
  addEventListener?.('online', online, { signal });
  addEventListener?.('focus', focus, { signal });
  // A page that may come back must not keep its connection: Chromium would count it.
  addEventListener?.('pagehide', sleep, { signal });
  addEventListener?.('pageshow', () => asleep && wake(), { signal });
  for (const type of ['visibilitychange', 'resume']) page?.addEventListener(type, wake, { signal });

  if (latest().pauseWhenHidden && page?.visibilityState === 'hidden') asleep = true;
  connect();
  return {
    getState: () => state,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reconnect,
    close() {
      listeners.clear();
      end();
      life.abort();
      clear('notify');
    },
  };
}

/** Asks for the JSON state of the job whose stream is at the URL. */
export async function askState(
  url: string,
  { fetch = globalThis.fetch, withCredentials, stateUrl }: WatchOptions,
  signal: AbortSignal,
): Promise<{ job: Job } | { error: ConnectionError }> {
  const [, id = ''] = /([^/]*)\/progress(?=\?|$)/.exec(url) ?? [];
  try {
    const response = await fetch(stateUrl ?? url.replace(/\/progress(?=\?|$)/, ''), {
      credentials: withCredentials ? 'include' : 'same-origin',
      headers: { Accept: 'application/json' },
      cache: 'no-cache', // with ETag
      signal,
    });
    const { ok, status } = response;
    const body = (await response.json().catch(() => null)) as { code?: string; detail?: string } | null;
    const job = ok ? toJob(body, decodeURIComponent(id) || undefined) : null;
    if (job) return { job };
    return { error: { code: body?.code ?? 'unexpected_answer', message: body?.detail ?? `the answer (${status}) is not of this server`, status } };
  } catch (cause) {
    return { error: { code: 'unreachable', message: `no answer that may be read: ${String(cause)}` } };
  }
}

function same(a: JobView, b: JobView): boolean {
  const { progress: p, status, error } = a;
  const q = b.progress;
  return status === b.status && error === b.error && p?.done === q?.done && p?.total === q?.total && p?.succeeded === q?.succeeded && p?.failed === q?.failed;
}

/** The server names a dead link only to those who ask, and a new EventSource has no other way to say where it was. */
function address(url: string, lastEventId: string): string {
  const asked = `${url}${url.includes('?') ? '&' : '?'}heartbeat=1`;
  return lastEventId ? `${asked}&lastEventId=${encodeURIComponent(lastEventId)}` : asked;
}
