// Jobs that follow a script: for component tests and stories, without a server. Time is that of setTimeout, so fake timers
// make it virtual.

import type { EventSourceConstructor, EventSourceLike } from './connection.js';
import { isTerminal, type Item, type Job, type JobStatus, type Progress } from './protocol.js';

/** A job of which a test or a story says how it goes. */
export interface ScriptedJob {
  /** For the options of the hooks: `useJobProgress(id, job.options)`. They are the same for all scripted jobs. */
  readonly options: { EventSource: EventSourceConstructor; fetch: typeof globalThis.fetch };
  /** Its JSON state now. */
  readonly state: Job;
  progress(change: Partial<Progress>): void;
  item(item: Item): void;
  status(status: JobStatus): void;
  complete(): void;
  fail(message: string): void;
  /** Its row is deleted. */
  remove(): void;
  /** The server is away, for all jobs, until `connect` or the next scriptedJob. */
  disconnect(): void;
  connect(): void;
  /** Does each step after its milliseconds, counted from the step before. */
  play(...steps: [milliseconds: number, step: (job: ScriptedJob) => void][]): void;
}

interface Said {
  type: string;
  [key: string]: unknown;
}

/** A stream: of one job, of several, or of all. */
interface Viewer {
  ids: string[] | null;
  /** Its events name their job. */
  many: boolean;
  send(event: object, type?: string): void;
  end(): void;
}

const retry = 1000; // milliseconds until an EventSource comes back
const jobs = new Map<string, { job: ScriptedJob; items: Map<string, Item> }>();
const viewers = new Set<Viewer>();
let connected = true;

const shown = ({ ids }: Viewer) => [...jobs.values()].filter(({ job }) => !ids || ids.includes(job.state.id));
const ended = (viewer: Viewer) => viewer.ids?.every((id) => isTerminal(jobs.get(id)?.job.state.status)) ?? false;

function send(viewer: Viewer, id: string, { type, ...event }: Said): void {
  viewer.send(viewer.many ? { type, jobId: id, ...event } : { type, ...event });
}

/** Sends an event to all who watch the job. */
function tell(id: string, event: Said): void {
  for (const viewer of [...viewers]) {
    if (viewer.ids && !viewer.ids.includes(id)) continue;
    send(viewer, id, event);
    if (ended(viewer)) viewer.end();
  }
}

/** Sends all that a new viewer is sent. */
function begin(viewer: Viewer): void {
  viewers.add(viewer);
  viewer.send({ interval: 30_000 }, 'heartbeat');
  for (const { job, items } of shown(viewer)) {
    const { id, progress, status, error } = job.state;
    const say = (event: Said) => send(viewer, id, event);
    if (viewer.many) say({ type: 'job', job: job.state });
    else {
      if (progress.total > 0) say({ type: 'progress', ...progress });
      if (!isTerminal(status)) say({ type: 'status', status });
      if (error) say({ type: 'error', message: error });
    }
    for (const item of items.values()) say({ type: 'item', ...item });
    if (!viewer.many && isTerminal(status)) say({ type: 'status', status });
  }
  if (ended(viewer)) viewer.end();
  else if (viewer.many) viewer.send({ deleted: 'gone' }, 'synced');
}

/** What a URL of the API names. */
function parse(url: string): { ids: string[] | null; many: boolean } {
  const { pathname, searchParams } = new URL(url, 'http://localhost');
  const one = /\/api\/jobs\/(?!progress$)([^/]+)/.exec(pathname)?.[1];
  const ids = searchParams.getAll('id');
  return { ids: one ? [decodeURIComponent(one)] : ids.length ? ids : null, many: !one };
}

class ScriptedEventSource implements EventSourceLike {
  readyState = 0;
  onmessage: EventSourceLike['onmessage'] = null;
  onerror: EventSourceLike['onerror'] = null;
  private readonly listeners = new Map<string, (event: MessageEvent) => unknown>();
  private readonly viewer: Viewer;
  private ids = 0;

  constructor(url: string) {
    this.viewer = {
      ...parse(url),
      send: (event, type = 'message') => {
        const listener = type === 'message' ? this.onmessage : this.listeners.get(type);
        listener?.(new MessageEvent(type, { data: JSON.stringify(event), lastEventId: String(++this.ids) }));
      },
      end: () => {
        viewers.delete(this.viewer);
        if (this.readyState === 2) return;
        this.readyState = 0;
        this.onerror?.(new Event('error'));
        if (!ended(this.viewer)) setTimeout(() => this.open(), retry);
      },
    };
    setTimeout(() => this.open(), 0);
  }

  addEventListener(type: string, listener: (event: MessageEvent) => unknown): void {
    this.listeners.set(type, listener);
  }

  close(): void {
    this.readyState = 2;
    viewers.delete(this.viewer);
  }

  private open(): void {
    if (this.readyState === 2) return;
    if (!connected) {
      this.viewer.end();
      return;
    }
    this.readyState = 1;
    begin(this.viewer);
  }
}

/** Answers as the server does: with a stream, or the JSON state. */
function respond(url: string, accept: string | null): Response {
  if (!connected) return Response.error();
  const { ids, many } = parse(url);
  const states = (ids ?? [...jobs.keys()]).flatMap((id) => jobs.get(id)?.job.state ?? []);
  if (!many && states.length === 0) {
    return Response.json({ code: 'job_not_found', status: 404, detail: 'There is no such job, or it is not yours.' }, { status: 404 });
  }
  if (!url.includes('/progress') || accept?.includes('json')) return Response.json(many ? states : states[0]);
  const encoder = new TextEncoder();
  let count = 0;
  let viewer: Viewer;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(encoder.encode(`retry: ${retry}\n`));
      viewer = {
        ids,
        many,
        send: (event, type) =>
          controller.enqueue(encoder.encode(`${type ? `event: ${type}` : `id: ${++count}`}\ndata: ${JSON.stringify(event)}\n\n`)),
        end: () => {
          viewers.delete(viewer);
          controller.close();
        },
      };
      begin(viewer);
    },
    cancel: () => void viewers.delete(viewer),
  });
  return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
}

/** Makes a job that runs, or is as `initial` says. It takes the place of another with this id. */
export function scriptedJob(id: string, initial: Partial<Omit<Job, 'id'>> = {}): ScriptedJob {
  let state: Job = {
    id,
    type: 'job',
    status: 'running',
    progress: { done: 0, total: 0, succeeded: 0, failed: 0 },
    error: null,
    createdAt: null,
    startedAt: null,
    completedAt: null,
    updatedAt: null,
    ...initial,
  };
  const items = new Map<string, Item>();
  const say = (event: Said) => tell(id, event);
  const job: ScriptedJob = {
    options: {
      EventSource: ScriptedEventSource,
      fetch: async (url, init) => {
        if (!connected) throw new TypeError('disconnected');
        return respond(String(url), new Headers(init?.headers).get('Accept'));
      },
    },
    get state() {
      return state;
    },
    progress(change) {
      state = { ...state, progress: { ...state.progress, ...change } };
      say({ type: 'progress', ...state.progress });
    },
    item(item) {
      items.delete(item.itemId);
      items.set(item.itemId, item);
      say({ type: 'item', ...item });
    },
    status(status) {
      state = { ...state, status };
      say({ type: 'status', status });
    },
    complete: () => job.status('completed'),
    fail(error) {
      state = { ...state, error };
      say({ type: 'error', message: error });
      job.status('failed');
    },
    remove() {
      jobs.delete(id);
      say({ type: 'removed' });
    },
    disconnect() {
      connected = false;
      for (const viewer of [...viewers]) viewer.end();
    },
    connect() {
      connected = true;
    },
    play(...steps) {
      const [first, ...rest] = steps;
      if (!first) return;
      setTimeout(() => {
        first[1](job);
        job.play(...rest);
      }, first[0]);
    },
  };
  connected = true;
  jobs.set(id, { job, items });
  tell(id, { type: 'job', job: state });
  return job;
}

/** What is used of MSW's `http`. */
interface Http<Handler> {
  get(path: string, resolver: (info: { request: Request }) => Response): Handler;
}

/** Handlers of Mock Service Worker (https://mswjs.io) that answer for all scripted jobs: `setupServer(...jobHandlers(http))`. */
export const jobHandlers = <Handler>(http: Http<Handler>): Handler[] =>
  ['*/api/jobs', '*/api/jobs/:id', '*/api/jobs/:id/progress'].map((path) =>
    http.get(path, ({ request }) => respond(request.url, request.headers.get('Accept'))),
  );
