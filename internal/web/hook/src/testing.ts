// A job that follows a script: for component tests and stories, without a server. Time is that of setTimeout, so fake timers
// make it virtual.

import { nothing, type Item, type Job, type JobStatus, type Progress } from './protocol.js';
import type { EventSourceConstructor, EventSourceLike } from './watch.js';

/** A job of which a test or a story says how it goes. */
export interface ScriptedJob {
  /** For the options of the hook: `useJobProgress(id, { ...job.options })`. */
  readonly options: { EventSource: EventSourceConstructor; fetch: typeof globalThis.fetch };
  /** Its JSON state now. */
  readonly state: Job;
  progress(change: Partial<Progress>): void;
  item(item: Item): void;
  status(status: JobStatus): void;
  complete(): void;
  fail(message: string): void;
  /** The stream is away, and answers no more; until `connect`. */
  disconnect(): void;
  connect(): void;
  /** Does each step after its milliseconds, counted from the step before. */
  play(...steps: [milliseconds: number, step: (job: ScriptedJob) => void][]): void;
  /** Answers as the server does, for handlers of requests: with the stream, or the JSON state. */
  respond(what: 'stream' | 'state'): Response;
}

const retry = 1000; // milliseconds until an EventSource comes back

/** Makes a job that runs, or is as `initial` says. */
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
  const items = new Map<string, Item>(nothing.items);
  const viewers = new Set<{ hear(event: object): void; end(): void }>();
  let connected = true;
  let ids = 0;

  const ended = () => state.status === 'completed' || state.status === 'failed';
  const send = (event: object) => {
    for (const viewer of [...viewers]) viewer.hear(event);
    if (ended()) for (const viewer of [...viewers]) viewer.end();
  };
  /** All that a new viewer is sent. */
  const present = (): object[] => [
    ...(state.progress.total > 0 ? [{ type: 'progress', ...state.progress }] : []),
    ...(ended() ? [] : [{ type: 'status', status: state.status }]),
    ...(state.error ? [{ type: 'error', message: state.error }] : []),
    ...[...items.values()].map((item) => ({ type: 'item', ...item })),
    ...(ended() ? [{ type: 'status', status: state.status }] : []),
  ];

  class ScriptedEventSource implements EventSourceLike {
    readyState = 0;
    onmessage: EventSourceLike['onmessage'] = null;
    onerror: EventSourceLike['onerror'] = null;
    private readonly listeners = new Map<string, (event: MessageEvent) => unknown>();
    private readonly viewer = {
      hear: (event: object) => this.onmessage?.(new MessageEvent('message', { data: JSON.stringify(event), lastEventId: String(++ids) })),
      end: () => {
        viewers.delete(this.viewer);
        if (this.readyState === 2) return;
        this.readyState = 0;
        this.onerror?.(new Event('error'));
        if (!ended()) setTimeout(() => this.open(), retry);
      },
    };

    constructor() {
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
      if (!connected) return this.viewer.end();
      this.readyState = 1;
      viewers.add(this.viewer);
      this.listeners.get('heartbeat')?.(new MessageEvent('heartbeat', { data: '{"interval":30000}' }));
      present().forEach(this.viewer.hear);
      if (ended()) this.viewer.end();
    }
  }

  const job: ScriptedJob = {
    options: {
      EventSource: ScriptedEventSource,
      fetch: async () => {
        if (!connected) throw new TypeError('disconnected');
        return Response.json(state);
      },
    },
    get state() {
      return state;
    },
    progress(change) {
      state = { ...state, progress: { ...state.progress, ...change } };
      send({ type: 'progress', ...state.progress });
    },
    item(item) {
      items.delete(item.itemId);
      items.set(item.itemId, item);
      send({ type: 'item', ...item });
    },
    status(status) {
      state = { ...state, status };
      send({ type: 'status', status });
    },
    complete: () => job.status('completed'),
    fail(error) {
      state = { ...state, error };
      send({ type: 'error', message: error });
      job.status('failed');
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
    respond(what) {
      if (!connected) return Response.error();
      if (what === 'state') return Response.json(state);
      const encoder = new TextEncoder();
      let viewer: { hear(event: object): void; end(): void };
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          controller.enqueue(encoder.encode(`retry: ${retry}\nevent: heartbeat\ndata: {"interval":30000}\n\n`));
          viewer = {
            hear: (event) => controller.enqueue(encoder.encode(`id: ${++ids}\ndata: ${JSON.stringify(event)}\n\n`)),
            end: () => {
              viewers.delete(viewer);
              controller.close();
            },
          };
          viewers.add(viewer);
          present().forEach(viewer.hear);
          if (ended()) viewer.end();
        },
        cancel: () => void viewers.delete(viewer),
      });
      return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
    },
  };
  return job;
}

/** What is used of MSW's `http`. */
interface Http<Handler> {
  get(path: string, resolver: (info: { params: Record<string, unknown> }) => Response): Handler;
}

/** Handlers of Mock Service Worker (https://mswjs.io) that answer for the jobs: `setupServer(...jobHandlers(http, job))`. */
export function jobHandlers<Handler>(http: Http<Handler>, ...jobs: ScriptedJob[]): Handler[] {
  const missing = () => Response.json({ code: 'job_not_found', status: 404, detail: 'There is no such job, or it is not yours.' }, { status: 404 });
  const find = (params: Record<string, unknown>) => jobs.find((job) => job.state.id === params.id);
  return [
    http.get('*/api/jobs/:id/progress', ({ params }) => find(params)?.respond('stream') ?? missing()),
    http.get('*/api/jobs/:id', ({ params }) => find(params)?.respond('state') ?? missing()),
  ];
}
