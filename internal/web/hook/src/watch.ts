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

export const idle: JobState = { ...nothing, connectionState: 'idle', isConnected: false, connectionError: null, staleSince: null };
export const connecting: JobState = { ...idle, connectionState: 'connecting' };

const CLOSED = 2; // EventSource.CLOSED
// In milliseconds:
const notifyInterval = 50; // between notifications
const reconnectingDelay = 1_000; // what ends sooner is not worth a word
const firstEventTimeout = 2_000; // until a stream that says nothing is not waited for alone
const notFoundTimeout = 10_000; // a job that is not there may be about to be inserted
const answerTimeout = 10_000;
const shortestPoll = 2_000;
const longestPoll = 15_000;

/** Between 80 and 100 % of it, so that not all come at once. */
const jitter = (milliseconds: number) => milliseconds * (0.8 + Math.random() / 5);

const report = (error: unknown) => (globalThis.reportError ?? console.error)(error);

/** Calls what is somebody else's: its errors must not cost more than themselves. */
export function attempt(callback: () => unknown): void {
  try {
    callback();
  } catch (error) {
    report(error);
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
  let interval = 30_000; // between signs of life, until the server says it

  let source: EventSourceLike | null = null;
  let lastEventId = '';
  const events: string[] = []; // that are not shown yet
  let eventCount = 0; // since the watch began
  let lastSign = Date.now(); // of life
  let proven = false; // the stream speaks
  let degraded = false; // and says that the server has lost its database
  let attempts = 0; // in a row
  let notFoundSince = 0;
  let renewing = false; // onUnauthorized is at work
  let paused = false; // the page is hidden or left, and the stream given back
  let asking: AbortController | null = null;
  let lastNotified = 0;
  const life = new AbortController(); // until close is called
  const { signal } = life;

  // A timer of each kind, at most.
  const timers: Partial<Record<'notify' | 'stream' | 'say' | 'poll' | 'proof', ReturnType<typeof setTimeout>>> = {};
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
    applyEvents();
    for (const listener of [...listeners]) attempt(listener);
  };
  const notifySoon = () => {
    if (timers.notify) return;
    const rest = Math.min(lastNotified + notifyInterval - Date.now(), notifyInterval);
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
  const applyEvents = () => {
    for (const data of events.splice(0)) {
      put(next(state, data));
      if (isStatus(data) && isTerminal(state.status)) return end();
    }
  };

  /** Gives the stream back. */
  const stop = () => {
    applyEvents();
    clear('stream', 'say', 'poll', 'proof');
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
  const received = () => {
    const connectionState = degraded ? 'degraded' : 'open';
    lastSign = Date.now();
    eventCount++;
    attempts = notFoundSince = 0;
    proven = true;
    clear('say', 'poll', 'proof');
    after('stream', 2 * interval, connect); // two without a sign
    if (connectionState === state.connectionState && !state.connectionError) return;
    set({ connectionState, connectionError: null, staleSince: degraded ? (state.staleSince ?? lastSign) : null });
  };

  /** What is shown may be old from now on. */
  const setReconnecting = (change?: Partial<JobState>) =>
    set({ ...change, connectionState: 'reconnecting', staleSince: state.staleSince ?? lastSign });

  /** The stream says nothing: soon the state says so, and the JSON state is asked for. */
  const markUnproven = () => {
    proven = degraded = false; // the next server says it again
    if (!timers.say && ['open', 'degraded'].includes(state.connectionState)) {
      after('say', reconnectingDelay, setReconnecting);
    }
    if (!timers.poll && !asking) after('poll', jitter(firstEventTimeout), poll);
  };

  const Source = () => latest().EventSource ?? globalThis.EventSource;

  const connect = () => {
    if (paused || state.connectionState === 'closed') return;
    source?.close();
    source = null;
    clear('proof');
    markUnproven();
    const EventSource = Source();
    if (!EventSource) return void poll(); // there is no other way
    const opened: EventSourceLike = new EventSource(address(url, lastEventId), { withCredentials: latest().withCredentials ?? false });
    source = opened;
    // An EventSource that was given up may still have something to say.
    const ofThisSource = (listener: (event: MessageEvent) => void) => (event: Event) => {
      if (opened === source) listener(event as MessageEvent);
    };
    opened.onmessage = ofThisSource((event) => {
      if (event.lastEventId) lastEventId = event.lastEventId;
      events.push(event.data as string);
      received();
      if (isStatus(event.data as string)) notify(); // each is shown: a job may run for less than a notification takes
      else notifySoon();
    });
    opened.addEventListener('heartbeat', ofThisSource(({ data }) => {
      interval = Number(/\d{3,8}/.exec(data)) || interval; // in {"interval":30000}
      received();
    }));
    opened.addEventListener('bus', ofThisSource(({ data }) => {
      degraded = data.includes('degraded');
      received();
    }));
    opened.onerror = ofThisSource(() => {
      applyEvents();
      if (opened !== source) return; // the job has ended
      markUnproven();
      if (opened.readyState !== CLOSED) return; // it comes back by itself
      source = null; // it does not, and does not tell why
      clear('stream');
      void poll();
    });
    after('stream', 2 * interval, connect);
  };

  const reconnect = () => {
    if (signal.aborted) return;
    paused = false;
    attempts = notFoundSince = 0;
    if (state.connectionState === 'closed') setReconnecting({ connectionError: null });
    connect();
  };

  const poll = async () => {
    clear('poll');
    await ask();
    if (proven || paused || asking || state.connectionState === 'closed') return;
    after('poll', jitter(Math.min(shortestPoll * 1.5 ** attempts++, longestPoll)), source || !Source() ? poll : connect);
  };

  /** Asks for the JSON state. */
  const ask = async () => {
    const before = eventCount;
    asking?.abort();
    const mine = (asking = new AbortController());
    const timeout = setTimeout(() => mine.abort(), answerTimeout);
    const answer = await askState(url, latest(), mine.signal);
    clearTimeout(timeout);
    if (mine !== asking) return;
    asking = null;
    if (eventCount !== before) return; // the stream knows better
    if ('job' in answer) answered(answer.job);
    else if (!proven) await refused(answer.error);
  };

  const answered = (job: Job) => {
    notFoundSince = 0;
    applyEvents();
    const view = fromJob(state, job);
    if (proven) {
      if (!same(view, state)) connect(); // what is shown is older than the row
      return;
    }
    if (isTerminal(job.status)) return end(view);
    set({ ...view, connectionState: 'polling', connectionError: null, staleSince: Date.now() });
  };

  const refused = async (error: ConnectionError) => {
    const { status, code } = error;
    if (code !== 'unexpected_answer' && [400, 403, 404].includes(status!)) {
      const deleted = !state.status && state.error; // the stream has said so
      notFoundSince ||= Date.now();
      // A job that is not there may be about to be inserted.
      if (status === 404 && !deleted && Date.now() - notFoundSince < notFoundTimeout) return;
      return end({ connectionError: error });
    }
    clear('say');
    const first = state.connectionError?.status !== 401;
    setReconnecting({ connectionError: error });
    const { onUnauthorized } = latest();
    if (status !== 401 || !onUnauthorized || renewing) return;
    renewing = true;
    try {
      await onUnauthorized();
      attempts = 0; // soon again
      if (first && !source) connect();
    } catch (cause) {
      report(cause);
    }
    renewing = false;
  };

  // A link that died while the page slept looks open. Timers sleep, too.
  const resume = () => {
    if (state.connectionState === 'closed') return;
    if (document.hidden) return latest().pauseWhenHidden && pause();
    if (paused || !source) {
      paused = false;
      connect();
    } else {
      after('proof', firstEventTimeout, connect); // unless it shows that it lives
    }
    void poll();
  };
  const pause = () => {
    applyEvents();
    if (state.connectionState === 'closed') return;
    paused = true;
    stop();
    setReconnecting();
  };
  const focus = () => state.connectionError && !source && connect(); // the user may have signed in elsewhere
  // A page that may come back must not keep its connection: Chromium would count it.
  const pageshow = () => paused && resume();
  for (const [type, listener] of Object.entries({ online: connect, focus, pagehide: pause, pageshow, visibilitychange: resume, resume })) {
    // What happens to the document passes the window, too. Not the focus of each input.
    globalThis.addEventListener?.(type, listener, { signal, capture: type !== 'focus' });
  }

  if (latest().pauseWhenHidden && globalThis.document?.hidden) paused = true;
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
  const job = url.replace(/\/progress(?=\?|$)/, '');
  try {
    const id = stateUrl ? undefined : decodeURIComponent(/[^/?]*(?=\?|$)/.exec(job)![0]);
    const response = await fetch(stateUrl ?? job, {
      credentials: withCredentials ? 'include' : 'same-origin',
      headers: { Accept: 'application/json' },
      cache: 'no-cache', // with ETag
      signal,
    });
    const { ok, status } = response;
    const body = (await response.json().catch(() => null)) as { code?: string; detail?: string } | null;
    const answer = ok && toJob(body, id);
    if (answer) return { job: answer };
    return { error: { code: body?.code ?? 'unexpected_answer', message: body?.detail ?? `HTTP ${status}`, status } };
  } catch (cause) {
    return { error: { code: 'unreachable', message: String(cause) } };
  }
}

const isStatus = (data: string) => data.startsWith('{"type":"status"');

const same = (a: JobView, b: JobView) => text(a) === text(b);
const text = ({ progress, status, error }: JobView) => JSON.stringify([progress, status, error]);

/** The server names a dead link only to those who ask, and a new EventSource has no other way to say where it was. */
const address = (url: string, lastEventId: string) =>
  `${url}${url.includes('?') ? '&' : '?'}heartbeat=1&lastEventId=${encodeURIComponent(lastEventId)}`;
