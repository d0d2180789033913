import { dehydrate, hydrate, QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { StrictMode, type ReactNode } from 'react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { commands } from 'vitest/browser';
import { render, renderHook } from 'vitest-browser-react';
import { jobKey, jobQueryOptions, useJobProgress, watchJob, type JobState, type UseJobProgressOptions } from '../src/index.js';

const ben = '00000000-0000-4000-8000-00000000000b';

/** An EventSource that is counted. */
class Counted extends EventSource {
  static opened: Counted[] = [];
  static get open() {
    return Counted.opened.filter((source) => source.readyState !== EventSource.CLOSED).length;
  }
  constructor(url: string, init?: EventSourceInit) {
    super(url, init);
    Counted.opened.push(this);
  }
}

let client: QueryClient;
const errors = vi.spyOn(console, 'error');

beforeEach(async () => {
  document.cookie = `session=${await commands.token()}; path=/`;
  client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  Counted.opened = [];
  errors.mockClear();
});

afterEach(() => {
  client.clear();
  expect(errors).not.toHaveBeenCalled();
});

const wrapper = ({ children }: { children: ReactNode }) => <QueryClientProvider client={client}>{children}</QueryClientProvider>;

function watch(id: string | null, options: UseJobProgressOptions = {}) {
  return renderHook((props?: { id: string | null }) => useJobProgress(props ? props.id : id, { EventSource: Counted, heartbeatInterval: 500, ...options }), { wrapper });
}

// Generous: only a hang is to meet it.
const eventually = (check: () => void | Promise<void>) => vi.waitFor(check, { timeout: 20_000, interval: 10 });
const becomes = (state: () => JobState, expected: object) => eventually(() => expect(state()).toMatchObject(expected));

test('shows a job from its first state to its last', async () => {
  const id = await commands.insert();
  const onComplete = vi.fn();
  const onFailed = vi.fn();
  const { result } = await watch(id, { onComplete, onFailed });
  await becomes(() => result.current, { status: 'running', progress: { done: 0, total: 10, succeeded: 0, failed: 0 }, connectionState: 'open', isConnected: true, error: null });

  await commands.item(id, 's1', 'in_progress', 'Artist – Title');
  await becomes(() => result.current, { currentItem: { itemId: 's1', itemKind: 'song', status: 'in_progress', label: 'Artist – Title' } });
  await commands.item(id, 's2', 'in_progress');
  await commands.item(id, 's2', 'succeeded');
  await eventually(() => expect(result.current.items.get('s2')?.status).toBe('succeeded'));
  expect(result.current.currentItem?.itemId).toBe('s1');
  expect([...result.current.items.keys()]).toEqual(['s1', 's2']);

  await commands.progress(id, 10);
  await becomes(() => result.current, { progress: { done: 10 } });
  expect(onComplete).not.toHaveBeenCalled();
  await commands.finish(id);
  await becomes(() => result.current, { status: 'completed', progress: { done: 10 }, connectionState: 'closed', isConnected: false });
  expect(onComplete).toHaveBeenCalledTimes(1);
  expect(onComplete.mock.calls[0]![0]).toMatchObject({ status: 'completed', progress: { done: 10 } });
  expect(onFailed).not.toHaveBeenCalled();
  expect(Counted.open).toBe(0);
});

test('a job that has failed says so once, also to a page that comes later', async () => {
  const id = await commands.insert();
  await commands.finish(id, 'failed', 'two songs were lost');
  const onFailed = vi.fn();
  const { result, rerender } = await watch(id, { onFailed: (job) => onFailed(job) });
  await becomes(() => result.current, { status: 'failed', error: 'two songs were lost', connectionState: 'closed' });
  await rerender({ id });
  await rerender({ id });
  expect(onFailed).toHaveBeenCalledTimes(1);
});

test('null watches nothing', async () => {
  const { result, rerender } = await watch(null);
  expect(result.current).toMatchObject({ progress: null, status: null, currentItem: null, error: null, isConnected: false, connectionState: 'idle' });
  expect(result.current.items.size).toBe(0);
  expect(Counted.opened).toHaveLength(0);
  const id = await commands.insert();
  await rerender({ id });
  await becomes(() => result.current, { status: 'running' });
  await rerender({ id: null });
  expect(result.current.connectionState).toBe('idle');
  await eventually(() => expect(Counted.open).toBe(0));
});

test('one stream for a job, however many watch it, and none after the last', async () => {
  const id = await commands.insert();
  const One = () => <p>{useJobProgress(id, { EventSource: Counted }).status}</p>;
  const all = (n: number) => (
    <StrictMode>
      <QueryClientProvider client={client}>{Array.from({ length: n }, (_, i) => <One key={i} />)}</QueryClientProvider>
    </StrictMode>
  );
  const screen = await render(all(20));
  await eventually(() => expect(screen.container.textContent).toBe('running'.repeat(20)));
  expect(Counted.opened).toHaveLength(1);
  await screen.rerender(all(1));
  expect(Counted.open).toBe(1);
  await screen.unmount();
  await eventually(() => expect(Counted.open).toBe(0));
  expect(Counted.opened).toHaveLength(1);
  await eventually(async () => expect(await commands.metric('jobprogress_streams_open')).toBe(0));
});

test('progress and status are merged into the entry of the application, which stays its own', async () => {
  const id = await commands.insert();
  let title = 'first';
  const fetches = vi.fn();
  const { result } = await renderHook(
    () => {
      const query = useQuery({
        queryKey: jobKey(id),
        queryFn: async () => {
          fetches();
          return { title, progress: { done: -1, total: 10, succeeded: 0, failed: 0 }, status: 'old' };
        },
        staleTime: Infinity,
      });
      return { query, job: useJobProgress(id, { EventSource: Counted }) };
    },
    { wrapper },
  );
  await becomes(() => result.current.job, { status: 'running' });
  await commands.progress(id, 4);
  await eventually(() => expect(result.current.query.data).toEqual({ title: 'first', progress: { done: 4, total: 10, succeeded: 4, failed: 0 }, status: 'running' }));

  // Its own refetch works, brings what else it has, and does not go back.
  title = 'second';
  await client.refetchQueries({ queryKey: jobKey(id) });
  expect(fetches.mock.calls.length).toBeGreaterThan(1);
  await eventually(() => expect(result.current.query.data).toMatchObject({ title: 'second', progress: { done: 4 }, status: 'running' }));
  await commands.progress(id, 5);
  await eventually(() => expect(result.current.query.data).toMatchObject({ title: 'second', progress: { done: 5 } }));
  expect(result.current.query.isError).toBe(false);
});

test('a slow answer does not put an older progress over a newer one', async () => {
  const id = await commands.insert();
  let answer: (value: object) => void = () => {};
  const shown: number[] = [];
  const { result } = await renderHook(
    () => {
      const query = useQuery({ queryKey: jobKey(id), queryFn: () => new Promise<{ progress: { done: number } }>((resolve) => (answer = resolve as never)), staleTime: Infinity });
      if (query.data?.progress) shown.push(query.data.progress.done);
      return { query, job: useJobProgress(id, { EventSource: Counted }) };
    },
    { wrapper },
  );
  await becomes(() => result.current.job, { status: 'running' });
  void client.refetchQueries({ queryKey: jobKey(id) }); // in flight
  await commands.progress(id, 9);
  await becomes(() => result.current.job, { progress: { done: 9 } });
  answer({ title: 'late', progress: { done: 1, total: 10, succeeded: 1, failed: 0 }, status: 'pending' });
  await eventually(() => expect(result.current.query.data).toEqual({ title: 'late', progress: { done: 9, total: 10, succeeded: 9, failed: 0 }, status: 'running' }));
  expect(shown).toEqual([...shown].sort((a, b) => a - b));
});

test('what the stream writes makes the rest of the entry no newer, and keeps it from being collected', async () => {
  const id = await commands.insert();
  client.setDefaultOptions({ queries: { gcTime: 0 } });
  const { result, unmount } = await watch(id);
  await becomes(() => result.current, { status: 'running' });
  expect(client.getQueryState(jobKey(id))).toMatchObject({ dataUpdatedAt: 0 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(client.getQueryData(jobKey(id))).toMatchObject({ status: 'running' });

  client.setQueryData(jobKey(id), { title: 'x' }, { updatedAt: 1000 });
  await client.invalidateQueries({ queryKey: jobKey(id), refetchType: 'none' });
  await commands.progress(id, 1);
  await eventually(() => expect(client.getQueryData(jobKey(id))).toMatchObject({ title: 'x', progress: { done: 1 } }));
  expect(client.getQueryState(jobKey(id))).toMatchObject({ dataUpdatedAt: 1000, isInvalidated: true });
  await unmount();
  await eventually(() => expect(client.getQueryData(jobKey(id))).toBeUndefined());
});

test('jobQueryOptions asks for the state as JSON, with or without a stream', async () => {
  const id = await commands.insert();
  await commands.progress(id, 3);
  const job = await client.fetchQuery(jobQueryOptions(id));
  expect(job).toMatchObject({ id, type: 'matching', status: 'running', progress: { done: 3, total: 10 }, error: null });
  const nobodys = crypto.randomUUID();
  await expect(client.fetchQuery(jobQueryOptions(nobodys))).rejects.toMatchObject({ status: 404, code: 'job_not_found' });

  const { result } = await renderHook(() => useQuery({ ...jobQueryOptions(id), refetchInterval: 50 }), { wrapper });
  await commands.progress(id, 4);
  await eventually(() => expect(result.current.data?.progress.done).toBe(4));
});

test('a job that is started again is watched again when the application hears of it', async () => {
  const id = await commands.insert();
  const onComplete = vi.fn();
  const { result } = await watch(id, { onComplete });
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.item(id, 's1', 'succeeded');
  await commands.finish(id);
  await becomes(() => result.current, { connectionState: 'closed', status: 'completed' });
  await commands.sql(`update job set status = 'running', started_at = clock_timestamp(), progress = '{"total": 20}' where id = $1`, [id]);
  await client.fetchQuery({ ...jobQueryOptions(id), staleTime: 0 });
  await becomes(() => result.current, { connectionState: 'open', status: 'running', progress: { total: 20 } });
  expect(result.current.items.size).toBe(0);
  await commands.finish(id);
  await becomes(() => result.current, { status: 'completed' });
  expect(onComplete).toHaveBeenCalledTimes(2);
});

test("another's job ends with an error, not with a loop", async () => {
  const id = await commands.insert(ben);
  const onFailed = vi.fn();
  const { result } = await watch(id, { onFailed });
  await becomes(() => result.current, { connectionState: 'closed', error: 'There is no such job, or it is not yours.', status: null });
  expect(onFailed).not.toHaveBeenCalled();
  document.cookie = 'session=; path=/; max-age=0';
  const second = await watch(await commands.insert());
  await becomes(() => second.result.current, { connectionState: 'closed', error: expect.stringContaining('token') });
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

test('a page that missed nothing while it was away is connected again, though it is told nothing', async () => {
  const id = await commands.insert();
  const { result } = await watch(id, { heartbeatInterval: 60_000 });
  await becomes(() => result.current, { connectionState: 'open' });
  const streams = Counted.opened.length;
  window.dispatchEvent(new Event('online'));
  await becomes(() => result.current, { connectionState: 'reconnecting' });
  await becomes(() => result.current, { connectionState: 'open' });
  expect(Counted.opened.length).toBe(streams + 1);
});

test('when EventSource gives up, the JSON state says whether to go on', async () => {
  let opened = 0;
  class GivesUp {
    readyState = 2;
    onopen = null;
    onmessage = null;
    onerror: ((event: Event) => unknown) | null = null;
    constructor() {
      opened++;
      queueMicrotask(() => this.onerror?.(new Event('error')));
    }
    addEventListener() {}
    close() {}
  }
  const answers = [
    () => new Response('', { status: 500 }),
    () => Response.json({ status: 'running', progress: { done: 1, total: 2, succeeded: 1, failed: 0 }, error: null }),
    () => Response.json({ status: 'completed', progress: { done: 2, total: 2, succeeded: 2, failed: 0 }, error: null }),
  ];
  const asked: string[] = [];
  const ask = async (url: RequestInfo | URL) => {
    asked.push(String(url));
    return answers.shift()!();
  };
  const states: (string | number | undefined)[] = [];
  const job = watchJob('/api/jobs/x/progress', { EventSource: GivesUp, fetch: ask as typeof fetch });
  job.subscribe(() => states.push(job.getState().connectionState, job.getState().progress?.done));
  await becomes(job.getState, { connectionState: 'closed', status: 'completed', progress: { done: 2 } });
  expect(opened).toBe(3); // with a growing pause between them
  expect(asked).toEqual(Array(3).fill('/api/jobs/x'));
  expect(states).toContain('reconnecting');
  expect(states).not.toContain('open');
});

test.for([
  ['resume', () => document],
  ['visibilitychange', () => document],
  ['pageshow', () => window],
] as const)('after sleep (%s) the link is not trusted', async ([type, target]) => {
  const id = await commands.insert();
  const { result } = await watch(id, { heartbeatInterval: 60_000 });
  await becomes(() => result.current, { connectionState: 'open' });
  const streams = Counted.opened.length;
  target().dispatchEvent(new Event(type));
  expect(Counted.opened.length).toBe(streams); // it has not slept
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 90_000 });
  target().dispatchEvent(new Event(type));
  vi.useRealTimers();
  expect(Counted.opened.length).toBe(streams + 1);
  await becomes(() => result.current, { connectionState: 'open' });
});

test("a query that is mounted later fetches what the stream does not say, and an error of its own stays", async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { status: 'running' });
  const later = await renderHook(() => useQuery({ queryKey: jobKey(id), queryFn: async () => ({ title: 'x' }) as { title: string; status?: string }, staleTime: Infinity }), { wrapper });
  await eventually(() => expect(later.result.current.data).toMatchObject({ title: 'x', status: 'running' }));

  await expect(client.fetchQuery({ queryKey: jobKey(id), queryFn: () => Promise.reject(new Error('broken')), staleTime: 0 })).rejects.toThrow();
  expect(client.getQueryState(jobKey(id))?.status).toBe('error');
  await commands.progress(id, 5);
  await eventually(() => expect(client.getQueryData(jobKey(id))).toMatchObject({ title: 'x', progress: { done: 5 } }));
  expect(client.getQueryState(jobKey(id))).toMatchObject({ status: 'error', error: { message: 'broken' } });
});

test('a state that was rendered on a server does not take the page back', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await commands.progress(id, 10);
  await commands.finish(id);
  await becomes(() => result.current, { connectionState: 'closed', status: 'completed' });
  const server = new QueryClient();
  server.setQueryData(jobKey(id), { title: 'x', status: 'running', progress: { done: 3, total: 10, succeeded: 3, failed: 0 } }, { updatedAt: Date.now() + 1000 });
  hydrate(client, dehydrate(server));
  expect(client.getQueryData(jobKey(id))).toMatchObject({ title: 'x', status: 'completed', progress: { done: 10 } });
});

test('a watch may be closed by whoever listens, and who was refused may come again', async () => {
  const id = await commands.insert();
  document.cookie = 'session=; path=/; max-age=0';
  const job = watchJob(`/api/jobs/${id}/progress`, { EventSource: Counted });
  await becomes(job.getState, { connectionState: 'closed', error: expect.stringContaining('token') });
  document.cookie = `session=${await commands.token()}; path=/`;
  job.reconnect();
  await becomes(job.getState, { connectionState: 'open', status: 'running', error: null });
  job.subscribe(() => job.close());
  job.reconnect();
  expect(job.getState().connectionState).toBe('closed');
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
  await commands.sql(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'jobprogress%'`);
  await becomes(() => result.current, { connectionState: 'degraded', isConnected: true });
  await commands.sql(`update pg_database set datallowconn = true where datname = $1`, [name]);
  await becomes(() => result.current, { connectionState: 'open' });
});

test('events of types that are not known yet change nothing', async () => {
  const frames = ['{"type":"novelty","x":1}', 'no json', '7', 'null', '{"type":"status","status":"running"}'];
  class Scripted {
    readyState = 1;
    onopen = null;
    onmessage: ((event: MessageEvent) => unknown) | null = null;
    onerror: ((event: Event) => unknown) | null = null;
    constructor() {
      queueMicrotask(() => frames.forEach((data) => this.onmessage?.(new MessageEvent('message', { data }))));
    }
    addEventListener() {}
    close() {}
  }
  const { result } = await renderHook(() => useJobProgress('x', { EventSource: Scripted }), { wrapper });
  await becomes(() => result.current, { status: 'running', progress: null, error: null });
});
