// One job's stream as a store: no React, no other dependency.

import { isTerminal, next, nothing, withStatus, type JobStatus, type JobView, type Progress } from './protocol.js';

/**
 * `idle` nothing to watch · `connecting` the first time · `open` · `reconnecting` the stream is away, what is shown may
 * be old · `degraded` the stream is open, and the server has lost its database · `closed` there is nothing more to come.
 */
export type ConnectionState = 'idle' | 'connecting' | 'open' | 'reconnecting' | 'degraded' | 'closed';

/** A job as it is shown, and how its stream is. */
export interface JobState extends JobView {
  connectionState: ConnectionState;
  /** The stream is open. */
  isConnected: boolean;
}

/** What is used of an EventSource. */
export interface EventSourceLike {
  readonly readyState: number;
  onopen: ((event: Event) => unknown) | null;
  onmessage: ((event: MessageEvent) => unknown) | null;
  onerror: ((event: Event) => unknown) | null;
  addEventListener(type: string, listener: (event: MessageEvent) => unknown): void;
  close(): void;
}

export type EventSourceConstructor = new (url: string, init?: { withCredentials?: boolean }) => EventSourceLike;

export interface WatchOptions {
  /** Another EventSource, one that sends headers for example. Keep it the same object. */
  EventSource?: EventSourceConstructor | undefined;
  /** Send cookies to another origin. */
  withCredentials?: boolean | undefined;
  /** The server's ping interval, in milliseconds (30,000). After two without a sign of life the link counts as dead. */
  heartbeatInterval?: number | undefined;
  /** Asks for the JSON state; to be set with EventSource, if credentials go in headers. Keep it the same object. */
  fetch?: typeof globalThis.fetch | undefined;
}

/** A job that is watched. */
export interface JobWatch {
  getState(): JobState;
  /** Calls the listener after each change, until the returned function is called. */
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
});

export const idle = withConnection('idle');
export const connecting = withConnection('connecting');

/** A job as `GET /api/jobs/{id}` answers. */
export interface Job {
  id: string;
  type: string;
  status: JobStatus;
  progress: Progress;
  error: string | null;
  createdAt: string | null;
  startedAt: string | null;
  completedAt: string | null;
  updatedAt: string | null;
}

const OPEN = 1; // EventSource.OPEN
const CLOSED = 2;
const longestBackoff = 30_000; // ms
/** A server that can't serve now opens a stream, too, and ends it at once: EventSource would give up otherwise. */
const refusal = 200; // ms

/** These answers will not change by waiting. */
const permanent = [400, 401, 403, 404];

/**
 * Watches the job whose stream is at the URL, `/api/jobs/{id}/progress`, from now on: it comes back by itself after
 * whatever happens to server, network or page, and ends when the job ends, or when it must not or can't be watched.
 */
export function watchJob(url: string, options: WatchOptions = {}): JobWatch {
  const { withCredentials = false, heartbeatInterval = 30_000 } = options;
  const listeners = new Set<() => void>();
  let state = connecting;
  let source: EventSourceLike | null = null;
  let lastEventId = '';
  let lastSign = 0; // of life
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asking: AbortController | null = null;
  const life = new AbortController(); // until close is called
  const { signal } = life;

  const set = (change: Partial<JobState>) => {
    const connectionState = change.connectionState ?? state.connectionState;
    state = { ...state, ...change, isConnected: connectionState === 'open' || connectionState === 'degraded' };
    for (const listener of [...listeners]) {
      try {
        listener();
      } catch (error) {
        reportError(error); // it is the listener's, and must not stop the watch
      }
    }
  };

  const stop = () => {
    clearTimeout(timer);
    asking?.abort();
    asking = null;
    source?.close();
    source = null;
  };

  const end = (change: Partial<JobState> = {}) => {
    stop();
    set({ ...change, connectionState: 'closed' });
  };

  const Source = options.EventSource ?? globalThis.EventSource;
  if (!Source) throw new Error('no EventSource here: set the option');

  const connect = () => {
    if (signal.aborted) return;
    stop();
    const opened: EventSourceLike = new Source(address(url, lastEventId), { withCredentials });
    source = opened;
    // An EventSource that was given up may still have something to say.
    const ours = (listener: (event: MessageEvent) => void) => (event: Event) => {
      if (opened === source) listener(event as MessageEvent);
    };
    const hear = (view: JobView = state, connectionState: ConnectionState = state.connectionState === 'degraded' ? 'degraded' : 'open') => {
      alive();
      failures = 0;
      if (view !== state || connectionState !== state.connectionState) set({ ...view, connectionState });
    };
    opened.onmessage = ours((event) => {
      if (event.lastEventId) lastEventId = event.lastEventId;
      const view = next(state, event.data as string);
      if (isTerminal(view.status) && view.status !== state.status) end(view);
      else hear(view);
    });
    opened.addEventListener('heartbeat', ours(() => hear()));
    opened.addEventListener('bus', ours(({ data }) => hear(state, String(data).includes('degraded') ? 'degraded' : 'open')));
    // A page that has missed nothing is told nothing.
    opened.onopen = ours(() => setTimeout(() => opened === source && opened.readyState === OPEN && hear(), refusal));
    opened.onerror = ours(() => {
      if (opened.readyState === CLOSED) void ask();
      else set({ connectionState: 'reconnecting' }); // by itself
    });
    alive();
  };

  const reconnect = () => {
    if (signal.aborted) return;
    connect();
    // What kept it from being watched may have ended.
    const refused = state.connectionState === 'closed' && !isTerminal(state.status);
    set({ connectionState: 'reconnecting', ...(refused && { error: null }) });
  };

  const wait = (milliseconds: number) => {
    clearTimeout(timer);
    if (signal.aborted) return;
    timer = setTimeout(reconnect, milliseconds);
  };

  const alive = () => {
    lastSign = Date.now();
    wait(2 * heartbeatInterval);
  };

  // EventSource gives up on every status but 200, and does not tell which it was.
  const ask = async () => {
    stop();
    const asked = (asking = new AbortController());
    set({ connectionState: 'reconnecting' });
    timer = setTimeout(() => asked.abort(), heartbeatInterval);
    try {
      const response = await (options.fetch ?? fetch)(url.replace(/\/progress(?=\?|$)/, ''), {
        credentials: withCredentials ? 'include' : 'same-origin',
        headers: { Accept: 'application/json' },
        cache: 'no-store',
        signal: asked.signal,
      });
      const body = (await response.json().catch(() => null)) as (Partial<Job> & { detail?: string }) | null;
      if (asked !== asking) return;
      if (permanent.includes(response.status)) {
        return end({ error: body?.detail ?? `the server answers ${response.status}` });
      }
      if (response.ok && body?.status && body.progress) {
        const view = { ...withStatus(state, body.status), progress: body.progress, error: body.error ?? null };
        if (isTerminal(view.status)) return end(view);
        set({ ...view, connectionState: 'reconnecting' });
      }
    } catch {
      if (asked !== asking) return;
    }
    wait(Math.min(1000 * 2 ** failures++, longestBackoff) * (0.5 + Math.random() / 2));
  };

  // A link that died while the page slept looks open. Timers sleep, too.
  const wake = () => {
    if (state.connectionState === 'closed' || document.visibilityState === 'hidden') return;
    if (Date.now() - lastSign > heartbeatInterval) reconnect();
    else if (source) wait(heartbeatInterval); // a sign is due by then
  };
  const online = () => {
    if (state.connectionState !== 'closed') reconnect();
  };
  globalThis.addEventListener?.('online', online, { signal });
  globalThis.addEventListener?.('pageshow', wake, { signal });
  for (const type of ['visibilitychange', 'resume']) globalThis.document?.addEventListener(type, wake, { signal });

  connect();
  return {
    getState: () => state,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reconnect,
    close() {
      life.abort();
      listeners.clear();
      end();
    },
  };
}

/** The server names a dead link only to those who ask, and a new EventSource has no other way to say where it was. */
function address(url: string, lastEventId: string): string {
  const asked = `${url}${url.includes('?') ? '&' : '?'}heartbeat=1`;
  return lastEventId ? `${asked}&lastEventId=${encodeURIComponent(lastEventId)}` : asked;
}
