// One stream of many jobs: opened, watched for signs of life, and replaced; while it is away the JSON state is asked for.

import { toJob, type Job } from './protocol.js';

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

/** How a stream is. */
export interface Connection {
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

export interface EventSourceConstructor {
  new (url: string, init?: { withCredentials?: boolean }): EventSourceLike;
  /** Constructors of another key make other streams. Without one all are taken for the same: it may be new at each render. */
  readonly key?: string;
}

export interface ConnectionOptions {
  /** Another EventSource, one that sends headers for example. */
  EventSource?: EventSourceConstructor | undefined;
  /** Asks for the JSON state; to be set with EventSource, if credentials go in headers. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Send cookies to another origin. */
  withCredentials?: boolean | undefined;
  /** Called when the credentials are not valid (any more). May renew them: the stream is tried again when its promise is kept. */
  onUnauthorized?: (() => unknown) | undefined;
  /** Give the stream back while nobody sees the page: over HTTP/1.1 a browser opens six, in all tabs together. */
  pauseWhenHidden?: boolean | undefined;
}

/** The jobs that are shown: what a connection says goes there. */
export interface Receiver {
  /** Of the stream, and of the JSON state; '' if there is nothing to ask for. */
  url(): string;
  /** From now on all that are asked for are sent again. */
  begin(): void;
  /** An event of a job; with type `synced` that all of them were sent. */
  receive(data: string, type: string): void;
  /** Takes in the JSON state: of all that there are. */
  answer(jobs: Job[]): void;
  /** These ids are none. */
  refuse(ids: string[], error: ConnectionError): void;
  /** The connection's state is another. */
  changed(): void;
}

export const idle: Connection = { connectionState: 'idle', isConnected: false, connectionError: null, staleSince: null };
export const connecting: Connection = { ...idle, connectionState: 'connecting' };
export const closed: Connection = { ...idle, connectionState: 'closed' };

const CLOSED = 2; // EventSource.CLOSED
// In milliseconds:
const breath = 20; // in which a page makes its components
const reconnectDistance = 500; // between streams of other jobs
const firstEventTimeout = 2_000; // until a stream that says nothing is not waited for alone; what ends sooner is not worth a word
const freshSign = 1_000; // a stream that has spoken since then is alive
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
 * Keeps a stream open: it comes back by itself after whatever happens to server, network or page, until `end` is called, or
 * there must not be one.
 */
export function openConnection(jobs: Receiver, latest: () => ConnectionOptions) {
  let state = connecting;
  let interval = 30_000; // between signs of life, until the server says it
  let source: EventSourceLike | null = null;
  let lastSign = Date.now(); // of life
  let openedAt = 0;
  let proven = false; // the stream speaks
  let degraded = false; // and says that the server has lost its database
  let attempts = 0; // in a row
  let renewing = false; // onUnauthorized is at work
  let paused = false; // the page is hidden or left, and the stream given back
  let asked = 0; // times for the JSON state
  let timer: ReturnType<typeof setTimeout>; // for what is to be done if nothing happens
  let soon: ReturnType<typeof setTimeout> | undefined; // for another stream
  const life = new AbortController(); // until close is called

  const after = (milliseconds: number, run: () => void) => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
  const isClosed = () => state.connectionState === 'closed';
  const set = (change: Partial<Connection>) => {
    state = { ...state, ...change };
    state.isConnected = ['open', 'degraded'].includes(state.connectionState);
    jobs.changed();
  };

  /** What is shown may be old from now on. */
  const setReconnecting = (connectionError: ConnectionError | null) =>
    set({ connectionError, connectionState: 'reconnecting', staleSince: state.staleSince ?? lastSign });

  /** Gives the stream back. */
  const stop = () => {
    clearTimeout(timer);
    asked++;
    source?.close();
    source = null;
    proven = degraded = false;
  };

  /** There is nothing more to come, unless the stream is opened again. */
  const end = (connectionError: ConnectionError | null = null) => {
    if (isClosed()) return;
    stop();
    set({ ...closed, connectionError });
  };

  /** Something came out of the stream. */
  const received = () => {
    const connectionState = degraded ? 'degraded' : 'open';
    lastSign = Date.now();
    attempts = 0;
    proven = true;
    asked++;
    after(2 * interval, connect); // two without a sign
    if (connectionState !== state.connectionState || state.connectionError) {
      set({ connectionState, connectionError: null, staleSince: degraded ? (state.staleSince ?? lastSign) : null });
    }
  };

  /** The stream says nothing: soon the state says so, and the JSON state is asked for. */
  const doubt = () => {
    proven = degraded = false; // the next server says it again
    after(jitter(firstEventTimeout), poll);
  };

  const Source = () => latest().EventSource ?? globalThis.EventSource;

  const connect = () => {
    clearTimeout(soon);
    soon = undefined;
    const url = jobs.url();
    if (paused || isClosed() || !url) return;
    source?.close();
    openedAt = Date.now();
    const EventSource = Source();
    if (!EventSource) return void poll(); // there is no other way
    doubt();
    const opened: EventSourceLike = (source = new EventSource(`${url}${url.includes('?') ? '&' : '?'}heartbeat=1`, {
      withCredentials: latest().withCredentials ?? false,
    }));
    jobs.begin();
    // An EventSource that was given up may still have something to say.
    const ofThisSource = (listener: (event: MessageEvent) => void) => (event: Event) => {
      if (opened === source) listener(event as MessageEvent);
    };
    const receive = ofThisSource(({ data, type }) => {
      received();
      jobs.receive(data, type);
    });
    opened.onmessage = receive;
    opened.addEventListener('synced', receive);
    opened.addEventListener(
      'heartbeat',
      ofThisSource(({ data }) => {
        interval = Number(/\d{3,8}/.exec(data)) || interval; // in {"interval":30000}
        received();
      }),
    );
    opened.addEventListener(
      'bus',
      ofThisSource(({ data }) => {
        degraded = data.includes('degraded');
        received();
      }),
    );
    opened.onerror = ofThisSource(() => {
      jobs.begin();
      if (opened !== source) return; // all have ended
      if (opened.readyState === CLOSED) {
        // It does not come back by itself, and does not say why.
        source = null;
        proven = degraded = false;
        void poll();
      } else if (proven) doubt();
    });
  };

  /** Asks for the JSON state, and goes on to do so until the stream speaks. */
  const poll = async () => {
    const url = jobs.url();
    if (!url) return;
    clearTimeout(timer);
    if (state.isConnected) setReconnecting(null);
    jobs.begin();
    const mine = ++asked;
    const answer = await askState(url, latest());
    if (mine !== asked) return; // the stream knows better
    after(
      jitter(Math.min(shortestPoll * 1.5 ** attempts++, longestPoll)),
      (source && Date.now() < openedAt + 2 * interval) || !Source() ? poll : connect,
    );
    if ('jobs' in answer) {
      jobs.answer(answer.jobs);
      if (!isClosed()) set({ connectionState: 'polling', connectionError: null, staleSince: Date.now() });
      return;
    }
    const { ids, ...error } = answer.error;
    const { code, status } = error;
    if (code === 'unexpected_answer' || ![400, 403].includes(status!)) {
      const first = state.connectionError?.status !== 401;
      setReconnecting(error);
      if (status === 401) void renew(first);
    } else if (ids) {
      jobs.refuse(ids, error);
      connect();
    } else end(error);
  };

  const renew = async (first: boolean) => {
    const { onUnauthorized } = latest();
    if (renewing || !onUnauthorized) return;
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
    if (document.hidden) return latest().pauseWhenHidden && pause();
    if (proven && Date.now() < lastSign + freshSign) return;
    paused = false;
    connect();
  };
  const pause = () => {
    if (isClosed()) return;
    paused = true;
    stop();
    setReconnecting(null);
  };
  const focus = () => state.connectionError && !source && connect(); // the user may have signed in elsewhere
  // A page that may come back must not keep its connection: Chromium would count it.
  const pageshow = () => paused && resume();
  for (const [type, listener] of Object.entries({ online: connect, focus, pagehide: pause, pageshow, visibilitychange: resume, resume })) {
    // What happens to the document passes the window, too. Not the focus of each input.
    globalThis.addEventListener?.(type, listener, { signal: life.signal, capture: type !== 'focus' });
  }

  if (latest().pauseWhenHidden && globalThis.document?.hidden) paused = true;
  return {
    getState: () => state,
    end,
    /** Opens the stream anew, also after its end. */
    reconnect() {
      paused = false;
      attempts = 0;
      if (isClosed()) setReconnecting(null);
      connect();
    },
    /** The jobs are others: opens the stream anew when the page has named all of them. */
    reconnectSoon() {
      if (isClosed()) set(connecting);
      soon ??= setTimeout(connect, Math.max(breath, openedAt + reconnectDistance - Date.now()));
    },
    /** Ends it for good. */
    close() {
      end();
      clearTimeout(soon);
      life.abort();
    },
  };
}

/** Why there is no JSON state, and, if it is because of some of many jobs, of which. */
type Refusal = ConnectionError & { ids?: string[] };

/** Asks for the JSON state of the jobs whose stream is at the URL. */
async function askState(
  url: string,
  { fetch = globalThis.fetch, withCredentials }: ConnectionOptions,
): Promise<{ jobs: Job[] } | { error: Refusal }> {
  try {
    const response = await fetch(url, {
      credentials: withCredentials ? 'include' : 'same-origin',
      headers: { Accept: 'application/json' },
      cache: 'no-cache', // with ETag
      signal: AbortSignal.timeout(answerTimeout),
    });
    const { ok, status } = response;
    const body: unknown = await response.json().catch(() => null);
    const jobs = ok && Array.isArray(body) && body.map(toJob);
    if (jobs && !jobs.includes(null)) return { jobs: jobs as Job[] };
    const { code = 'unexpected_answer', detail = `HTTP ${status}`, ids } = (body ?? {}) as { code?: string; detail?: string; ids?: string[] };
    return { error: { code, message: detail, status, ...(ids && { ids }) } };
  } catch (cause) {
    return { error: { code: 'unreachable', message: String(cause) } };
  }
}
