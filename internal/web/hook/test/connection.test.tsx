// What becomes of a watch when something goes wrong. React has no part in it.

import { expect, test, vi } from 'vitest';
import { commands } from 'vitest/browser';
import { renderHook } from 'vitest-browser-react';
import { useJobProgress, watchJob } from '../src/index.js';
import { ada, becomes, ben, Counted, eventually, watch, wrapper } from './harness.js';

test("another's job ends with an error, not with a loop", async () => {
  const id = await commands.insert(ben);
  const onSettled = vi.fn();
  const { result } = await watch(id, { onSettled });
  await becomes(() => result.current, {
    connectionState: 'closed',
    connectionError: { code: 'job_not_found', status: 404 },
    error: null,
    status: null,
  });
  expect(onSettled).not.toHaveBeenCalled();
});

test('a page may open the stream before the job is inserted', async () => {
  const id = crypto.randomUUID();
  const { result } = await watch(id);
  await new Promise((resolve) => setTimeout(resolve, 5000)); // longer than the server waits
  expect(result.current).toMatchObject({ connectionState: 'connecting', connectionError: null });
  await commands.sql(
    `insert into job (id, account_id, type, status, progress) values ($1, '00000000-0000-4000-8000-00000000000a', 'matching', 'pending', '{"total": 3}')`,
    [id],
  );
  await becomes(() => result.current, { connectionState: 'open', status: 'pending' });
});

test('a deleted job does not go on', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { status: 'running' });
  await commands.sql('delete from job where id = $1', [id]);
  await becomes(() => result.current, {
    status: null,
    error: 'job no longer exists',
    connectionState: 'closed',
    connectionError: { code: 'job_not_found' },
  });
});

test('credentials that ran out are renewed, and are no error of the job', async () => {
  const id = await commands.insert();
  document.cookie = `session=${await commands.token(ada, 2)}; path=/`;
  let renewals = 0;
  const { result } = await watch(id, {
    onUnauthorized: async () => {
      renewals++;
      document.cookie = `session=${await commands.token(ada, 2)}; path=/`;
    },
  });
  await becomes(() => result.current, { connectionState: 'open' });
  await eventually(() => expect(renewals).toBeGreaterThan(2));
  await commands.progress(id, 5);
  await becomes(() => result.current, { connectionState: 'open', progress: { done: 5 }, error: null, connectionError: null });
});

// For ten minutes with tokens of 20 s: VITE_SOAK=600 npx vitest run --project browser -t 'lazily'.
test('credentials that are renewed lazily, over and over', async () => {
  const seconds = Number(import.meta.env.VITE_SOAK ?? 8);
  const life = seconds < 60 ? 2 : 20;
  const [id, other] = [await commands.insert(ada, 1000), await commands.insert(ben, 7)];
  document.cookie = `session=${await commands.token(ada, life)}; path=/`;
  const onComplete = vi.fn();
  const seen = new Set<number | undefined>();
  let renewals = 0;
  const { result } = await watch(id, {
    onComplete,
    onUnauthorized: async () => {
      renewals++;
      await new Promise((resolve) => setTimeout(resolve, 300));
      document.cookie = `session=${await commands.token(ada, life)}; path=/`;
    },
  });
  await becomes(() => result.current, { connectionState: 'open' });
  let done = 0;
  for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
    await commands.progress(other, ++done);
    await commands.progress(id, done);
    await becomes(() => result.current, { progress: { done } });
    seen.add(result.current.progress?.total);
    expect(result.current.connectionState).not.toBe('closed');
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  await commands.finish(id);
  await becomes(() => result.current, { status: 'completed', connectionState: 'closed', error: null });
  await eventually(() => expect(onComplete).toHaveBeenCalledTimes(1));
  expect([...seen]).toEqual([1000]);
  expect(renewals).toBeGreaterThanOrEqual(Math.floor(seconds / (life + 2)) - 1);
  console.log(`${seconds} s with tokens of ${life} s: ${renewals} renewals, ${done} updates seen`);
}, 900_000);

test('without somebody to renew them it waits, and comes back when the user does', async () => {
  document.cookie = 'session=; path=/; max-age=0';
  const { result } = await watch(await commands.insert());
  await becomes(() => result.current, {
    connectionState: 'reconnecting',
    error: null,
    connectionError: { code: 'unauthenticated', status: 401, message: expect.stringContaining('token') },
  });
  document.cookie = `session=${await commands.token()}; path=/`;
  window.dispatchEvent(new Event('focus'));
  await becomes(() => result.current, { connectionState: 'open', status: 'running', connectionError: null });
});

test('the origin is killed and started again: the page is right again by itself', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.stopOrigin();
  await becomes(() => result.current, { connectionState: 'reconnecting', isConnected: false, status: 'running' });
  await commands.progress(id, 6);
  await commands.startOrigin();
  await becomes(() => result.current, { connectionState: 'open', progress: { done: 6 } });
  await commands.finish(id);
  await becomes(() => result.current, { connectionState: 'closed', status: 'completed' });
});

test('a page that missed nothing while it was away is connected again, though nothing is new', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  const streams = Counted.opened.length;
  document.dispatchEvent(new Event('resume')); // the stream has spoken within a second
  expect(Counted.opened.length).toBe(streams);
  window.dispatchEvent(new Event('online'));
  expect(Counted.opened.length).toBe(streams + 1);
  await becomes(() => result.current, { connectionState: 'open', staleSince: null });
});

/** What a browser makes of a server that it can't take for an event stream. */
class GivesUp {
  static opened = 0;
  readyState = 2;
  onmessage = null;
  onerror: ((event: Event) => unknown) | null = null;
  constructor() {
    GivesUp.opened++;
    queueMicrotask(() => this.onerror?.(new Event('error')));
  }
  addEventListener() {}
  close() {}
}

/** An EventSource that is open and says nothing, as behind a proxy that collects everything. */
class Silent extends GivesUp {
  override readyState = 1;
}

const job = (status: string, done: number) =>
  Response.json([{ id: 'x', status, progress: { done, total: 2, succeeded: done, failed: 0 }, error: null }]);

test('when EventSource gives up, the JSON state is shown until the stream comes', async () => {
  GivesUp.opened = 0;
  const answers = [() => new Response('', { status: 500 }), () => job('running', 1), () => job('completed', 2)];
  const asked: string[] = [];
  const ask = async (url: RequestInfo | URL) => {
    asked.push(String(url));
    return answers.shift()!();
  };
  const states: unknown[] = [];
  const watched = watchJob('/api/jobs/x/progress', { EventSource: GivesUp, fetch: ask as typeof fetch });
  watched.subscribe(() =>
    states.push(watched.getState().connectionState, watched.getState().progress?.done, watched.getState().connectionError?.code),
  );
  await becomes(watched.getState, { connectionState: 'closed', status: 'completed', progress: { done: 2 }, connectionError: null });
  watched.close();
  expect(GivesUp.opened).toBeLessThanOrEqual(3); // with a growing pause between them
  expect(asked).toEqual(Array(3).fill('/api/jobs/progress?id=x'));
  expect(states).toContain('polling');
  expect(states).toContain('unexpected_answer');
  expect(states).not.toContain('open');
});

test('a stream that says nothing is no connection: the JSON state is asked for', async () => {
  let done = 0;
  const watched = watchJob('/api/jobs/x/progress', { EventSource: Silent, fetch: async () => job('running', done++) });
  await becomes(watched.getState, { connectionState: 'polling', isConnected: false, status: 'running', progress: { done: 0 } });
  expect(watched.getState().staleSince).toBeGreaterThan(Date.now() - 5000);
  await becomes(watched.getState, { progress: { done: 1 } });
  watched.close();
});

test('without EventSource the JSON state is asked for', async () => {
  const real = globalThis.EventSource;
  Reflect.deleteProperty(globalThis, 'EventSource');
  try {
    const id = await commands.insert();
    const { result } = await renderHook(() => useJobProgress(id), { wrapper });
    await becomes(() => result.current, { connectionState: 'polling', status: 'running' });
    await commands.finish(id);
    await becomes(() => result.current, { connectionState: 'closed', status: 'completed' });
  } finally {
    globalThis.EventSource = real;
  }
});

test.for([
  ['a page', () => new Response('<!doctype html>', { headers: { 'Content-Type': 'text/html' } })],
  ["the application's own jobs", () => Response.json([{ id: 'x', status: 7, state: 'done' }])],
  ['a job', () => Response.json({ id: 'x', status: 'completed', progress: {}, error: null })],
  ["a router's 404", () => new Response('404 page not found', { status: 404 })],
] as const)('an answer that is not ours (%s) is not believed, and said', async ([, answer]) => {
  const watched = watchJob('/api/jobs/x/progress', { EventSource: GivesUp, fetch: async () => answer() });
  await becomes(watched.getState, {
    connectionState: 'reconnecting',
    status: null,
    connectionError: { code: 'unexpected_answer', status: answer().status },
  });
  watched.close();
});

test('an origin that does not answer is said', async () => {
  const watched = watchJob('/api/jobs/x/progress', { EventSource: GivesUp, fetch: () => Promise.reject(new TypeError('Failed to fetch')) });
  await becomes(watched.getState, { connectionState: 'reconnecting', connectionError: { code: 'unreachable' } });
  watched.close();
});

test.for([
  ['resume', () => document],
  ['visibilitychange', () => document],
  ['online', () => window],
] as const)('after sleep (%s) the stream is replaced at once: its link may be dead', async ([type, target]) => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.signalOrigin('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 1100)); // one that has just spoken is alive
  const streams = Counted.opened.length;
  target().dispatchEvent(new Event(type));
  expect(Counted.opened.length).toBe(streams + 1);
  expect(Counted.open).toBe(1);
  await commands.progress(id, 8);
  await commands.signalOrigin('SIGCONT');
  await becomes(() => result.current, { connectionState: 'open', progress: { done: 8 } });
});

test('a page that is left gives its stream back, and has it again when it comes back', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  window.dispatchEvent(new Event('pagehide'));
  expect(Counted.open).toBe(0);
  await commands.progress(id, 3);
  window.dispatchEvent(new Event('pageshow'));
  await becomes(() => result.current, { connectionState: 'open', progress: { done: 3 } });
  expect(Counted.open).toBe(1);
});

test('a hidden page gives its stream back if it is asked to', async () => {
  const id = await commands.insert();
  const { result } = await watch(id, { pauseWhenHidden: true });
  await becomes(() => result.current, { connectionState: 'open' });
  const visibility = vi.spyOn(document, 'hidden', 'get').mockReturnValue(true);
  document.dispatchEvent(new Event('visibilitychange'));
  expect(Counted.open).toBe(0);
  await becomes(() => result.current, { isConnected: false });
  await commands.progress(id, 3);
  visibility.mockRestore();
  document.dispatchEvent(new Event('visibilitychange'));
  await becomes(() => result.current, { connectionState: 'open', progress: { done: 3 } });
});

test('a button that tries again', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.finish(id);
  await becomes(() => result.current, { connectionState: 'closed' });
  await commands.sql(`update job set status = 'running', started_at = clock_timestamp() where id = $1`, [id]);
  result.current.reconnect();
  await becomes(() => result.current, { connectionState: 'open', status: 'running' });
});

test('a listener may close the watch', async () => {
  const id = await commands.insert();
  const watched = watchJob(`/api/jobs/${id}/progress`, { EventSource: Counted });
  await becomes(watched.getState, { connectionState: 'open', status: 'running' });
  watched.subscribe(() => watched.close());
  await commands.progress(id, 1);
  await becomes(watched.getState, { connectionState: 'closed' });
  watched.reconnect();
  expect(watched.getState().connectionState).toBe('closed');
  await eventually(() => expect(Counted.open).toBe(0));
});

test('of many items the last are remembered, as on the server', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { status: 'running' });
  await commands.item(id, 'first', 'in_progress');
  await commands.sql(`select jobprogress.item($1, 's' || i, 'song', 'succeeded') from generate_series(1, 300) as i`, [id]);
  await eventually(() => expect(result.current.items.has('s300')).toBe(true));
  expect(result.current.items.size).toBe(256);
  expect(result.current.items.has('s1')).toBe(false);
  expect(result.current.currentItem?.itemId).toBe('first');
});

test('a link that is open but dead is found and replaced', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.signalOrigin('SIGSTOP');
  await becomes(() => result.current, { connectionState: 'reconnecting' });
  await commands.progress(id, 7);
  await commands.signalOrigin('SIGCONT');
  await becomes(() => result.current, { connectionState: 'open', progress: { done: 7 } });
  expect(Counted.opened.length).toBeGreaterThan(1);
});

test('a database out of reach is degraded, not disconnected', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  const name = (await commands.sql('select current_database() as name'))[0]!.name;
  await commands.sql(`update pg_database set datallowconn = false where datname = $1`, [name]);
  await commands.sql(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'jobprogress%'`,
  );
  await becomes(() => result.current, { connectionState: 'degraded', isConnected: true });
  await commands.sql(`update pg_database set datallowconn = true where datname = $1`, [name]);
  await becomes(() => result.current, { connectionState: 'open' });
});

test('a server that has lost its database says nothing of the next one', async () => {
  const sources: Told[] = [];
  class Told {
    readyState = 1;
    onmessage: ((event: MessageEvent) => unknown) | null = null;
    onerror: ((event: Event) => unknown) | null = null;
    listeners = new Map<string, (event: MessageEvent) => unknown>();
    constructor() {
      sources.push(this);
    }
    addEventListener(type: string, listener: (event: MessageEvent) => unknown) {
      this.listeners.set(type, listener);
    }
    receive(type: string, data: string) {
      this.listeners.get(type)!(new MessageEvent(type, { data }));
    }
    cut() {
      this.readyState = 0;
      this.onerror!(new Event('error'));
    }
    close() {}
  }
  const watched = watchJob('/api/jobs/x/progress', { EventSource: Told, fetch: () => new Promise(() => {}) });
  await eventually(() => expect(sources).toHaveLength(1));
  sources[0]!.receive('heartbeat', '{"interval":30000}');
  sources[0]!.onmessage!(new MessageEvent('message', { data: '{"type":"job","jobId":"x","job":{"id":"x","status":"running","progress":{}}}' }));
  sources[0]!.receive('bus', '{"state":"degraded"}');
  sources[0]!.receive('heartbeat', '{"interval":30000}');
  await becomes(watched.getState, { connectionState: 'degraded', isConnected: true, staleSince: expect.any(Number) });
  sources[0]!.cut(); // and it comes back elsewhere by itself, at once
  sources[0]!.receive('heartbeat', '{"interval":30000}');
  await becomes(watched.getState, { connectionState: 'open', staleSince: null });
  watched.close();
});

test('what is not as it should be changes nothing', async () => {
  const frames = [
    '{"type":"job","jobId":"x","job":{"id":"x","status":"pending","progress":{}}}',
    '{"type":"novelty","jobId":"x","x":1}',
    'no json',
    '7',
    'null',
    '[]',
    '{"type":"item","jobId":"x","itemKind":"song","status":"queued"}',
    '{"type":"item","jobId":"x","itemId":"s1","itemKind":"song","status":7}',
    '{"type":"status","jobId":"x","status":7}',
    '{"type":"error","jobId":"x","message":{}}',
    '{"type":"progress","jobId":"x","done":-5,"total":1e99,"succeeded":"x"}',
    '{"type":"job","jobId":"x","job":7}',
    '{"type":"status","jobId":"y","status":"failed"}',
    '{"type":"status","jobId":"x","status":"running"}',
  ];
  class Scripted {
    readyState = 1;
    onmessage: ((event: MessageEvent) => unknown) | null = null;
    onerror: ((event: Event) => unknown) | null = null;
    constructor() {
      queueMicrotask(() => frames.forEach((data) => this.onmessage?.(new MessageEvent('message', { data }))));
    }
    addEventListener() {}
    close() {}
  }
  const { result } = await renderHook(() => useJobProgress('x', { EventSource: Scripted, mirror: false }), { wrapper });
  await becomes(() => result.current, { status: 'running', progress: { done: 0, total: 0, succeeded: 0, failed: 0 }, error: null });
  expect(result.current.items.size).toBe(0);
});
