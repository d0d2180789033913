import { dehydrate, hydrate, QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { StrictMode, type ReactNode } from 'react';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { commands } from 'vitest/browser';
import { render, renderHook } from 'vitest-browser-react';
import { jobKey, jobQueryOptions, useJobProgress, watchJob, type JobState, type UseJobProgressOptions } from '../src/index.js';

const ada = '00000000-0000-4000-8000-00000000000a';
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

function watch(id: string | null | undefined, options: UseJobProgressOptions = {}) {
  return renderHook((props?: { id: string | null | undefined }) => useJobProgress(props ? props.id : id, { EventSource: Counted, ...options }), { wrapper });
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

test('a job that had ended before is told of once, and not as an end that happened', async () => {
  const id = await commands.insert();
  await commands.finish(id, 'failed', 'two songs were lost');
  const told: string[] = [];
  const { result, rerender } = await watch(id, {
    onComplete: () => told.push('complete'),
    onFailed: () => told.push('failed'),
    onSettled: (job) => told.push(`settled ${job.status}`),
  });
  await becomes(() => result.current, { status: 'failed', error: 'two songs were lost', connectionState: 'closed' });
  await rerender({ id });
  await rerender({ id });
  expect(told).toEqual(['settled failed']);
});

test('a component that comes when the job has ended is told only that', async () => {
  const id = await commands.insert();
  const told: string[] = [];
  const first = await watch(id, { onComplete: () => told.push('first complete') });
  await becomes(() => first.result.current, { status: 'running' });
  await commands.finish(id);
  await becomes(() => first.result.current, { status: 'completed' });
  const second = await watch(id, { onComplete: () => told.push('second complete'), onSettled: () => told.push('second settled') });
  await becomes(() => second.result.current, { status: 'completed' });
  await eventually(() => expect(told).toEqual(['first complete', 'second settled']));
});

test('from one job to another and back: each end is told of once', async () => {
  const [a, b] = [await commands.insert(), await commands.insert()];
  const told: string[] = [];
  const { result, rerender } = await watch(a, { onComplete: () => told.push('complete'), onSettled: () => told.push('settled') });
  await becomes(() => result.current, { status: 'running' });
  await commands.finish(a);
  await becomes(() => result.current, { status: 'completed' });
  await rerender({ id: b });
  await becomes(() => result.current, { status: 'running' });
  await rerender({ id: a });
  await becomes(() => result.current, { status: 'completed', connectionState: 'closed' });
  await rerender({ id: b });
  await becomes(() => result.current, { status: 'running' });
  expect(told).toEqual(['complete', 'settled']);
});

test.for([null, undefined])('%s watches nothing', async (none) => {
  const { result, rerender } = await watch(none);
  expect(result.current).toMatchObject({ progress: null, status: null, currentItem: null, error: null, isConnected: false, connectionState: 'idle' });
  expect(result.current.items.size).toBe(0);
  expect(Counted.opened).toHaveLength(0);
  const id = await commands.insert();
  await rerender({ id });
  await becomes(() => result.current, { status: 'running' });
  await rerender({ id: none });
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
  // Nobody else has a query for it, so the entry is made, as a whole.
  await eventually(() => expect(client.getQueryData(jobKey(id))).toMatchObject({ id, type: 'matching', status: 'running', error: null }));
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

test('an entry is never half of one: the query of the application is waited for', async () => {
  const id = await commands.insert();
  let answer: (job: object) => void = () => {};
  const { result } = await renderHook(
    () => ({
      query: useQuery({ queryKey: jobKey(id), queryFn: () => new Promise<{ title: string }>((resolve) => (answer = resolve as never)) }),
      job: useJobProgress(id, { EventSource: Counted }),
    }),
    { wrapper },
  );
  await becomes(() => result.current.job, { status: 'running' });
  await commands.progress(id, 2);
  await becomes(() => result.current.job, { progress: { done: 2 } });
  expect(result.current.query).toMatchObject({ isPending: true, data: undefined });
  answer({ title: 'x' });
  await eventually(() => expect(result.current.query.data).toEqual({ title: 'x', status: 'running', progress: { done: 2, total: 10, succeeded: 2, failed: 0 } }));
});

test.for([['an array', [1, 2]], ['a text', 'mine']] as const)('%s that the application keeps there stays', async ([, kept]) => {
  const id = await commands.insert();
  client.setQueryData(jobKey(id), kept);
  const { result } = await watch(id);
  await commands.progress(id, 3);
  await becomes(() => result.current, { progress: { done: 3 } });
  expect(client.getQueryData(jobKey(id))).toEqual(kept);
});

test('the key of the entry is an option, and whether there is one', async () => {
  const [a, b] = [await commands.insert(), await commands.insert()];
  client.setQueryData(['mine', a], { title: 'a' });
  const first = await watch(a, { queryKey: ['mine', a] });
  const second = await watch(b, { mirror: false });
  await becomes(() => second.result.current, { status: 'running' });
  await becomes(() => first.result.current, { status: 'running' });
  await eventually(() => expect(client.getQueryData(['mine', a])).toMatchObject({ title: 'a', status: 'running' }));
  expect(client.getQueryCache().getAll().map(({ queryKey }) => queryKey)).toEqual([['mine', a]]);
});

test('a page that was rendered with prefetched data shows it at once, on the server and in the browser', async () => {
  const id = await commands.insert();
  await commands.progress(id, 4);
  await client.prefetchQuery(jobQueryOptions(id));
  const One = () => {
    const { status, progress } = useJobProgress(id, { EventSource: Counted });
    return <p>{`${status} ${progress?.done}`}</p>;
  };
  const whole = (
    <QueryClientProvider client={client}>
      <One />
    </QueryClientProvider>
  );
  expect(renderToString(whole)).toBe('<p>running 4</p>');
  expect(Counted.opened).toHaveLength(0);
  const container = document.createElement('div');
  document.body.append(container);
  container.innerHTML = renderToString(whole);
  const root = hydrateRoot(container, whole);
  await eventually(() => expect(Counted.opened).toHaveLength(1));
  expect(container.textContent).toBe('running 4');
  await commands.progress(id, 5);
  await eventually(() => expect(container.textContent).toBe('running 5'));
  root.unmount();
  container.remove();
});

test('options that are new at each render open no new stream, and the latest are used', async () => {
  const id = await commands.insert();
  const told: number[] = [];
  const asked: number[] = [];
  const { result, rerender } = await renderHook(
    (props?: { n: number }) =>
      useJobProgress(id, {
        EventSource: class extends Counted {},
        fetch: (...args) => {
          asked.push(props!.n);
          return fetch(...args);
        },
        onComplete: () => told.push(props!.n),
      }),
    { wrapper, initialProps: { n: 0 } },
  );
  await becomes(() => result.current, { status: 'running' });
  for (let n = 1; n <= 20; n++) await rerender({ n });
  expect(Counted.opened).toHaveLength(1);
  asked.length = 0;
  document.dispatchEvent(new Event('resume'));
  await eventually(() => expect(asked).toEqual([20]));
  await commands.finish(id);
  await becomes(() => result.current, { status: 'completed' });
  expect(told).toEqual([20]);
});

test('many updates are few renders, and the last is not lost', async () => {
  const id = await commands.insert(ada, 1000);
  let renders = 0;
  const { result } = await renderHook(
    () => {
      renders++;
      return useJobProgress(id, { EventSource: Counted, mirror: false });
    },
    { wrapper },
  );
  await becomes(() => result.current, { status: 'running' });
  const [before, since] = [renders, Date.now()];
  await commands.sql(`do $$ begin for i in 1..400 loop
    update job set progress = jsonb_build_object('total', 1000, 'done', i) where id = '${id}'; commit; perform pg_sleep(0.004);
  end loop; end $$`);
  await becomes(() => result.current, { progress: { done: 400 } });
  const most = 2 + (Date.now() - since) / 50;
  expect(renders - before).toBeLessThanOrEqual(most);
});

test('callbacks that throw cost nothing else', async () => {
  const id = await commands.insert();
  const reported = vi.spyOn(globalThis, 'reportError').mockImplementation(() => {});
  const onSettled = vi.fn();
  const { result } = await watch(id, {
    onComplete: () => {
      throw new Error('theirs');
    },
    onSettled,
  });
  await becomes(() => result.current, { status: 'running' });
  await commands.finish(id);
  await becomes(() => result.current, { status: 'completed' });
  expect(onSettled).toHaveBeenCalledTimes(1);
  expect(reported.mock.calls.map(([error]) => String(error))).toEqual(['Error: theirs']);
  reported.mockRestore();
});

test.for(['/', `${location.origin}/`, location.origin, ''])('baseUrl %j', async (baseUrl) => {
  const id = await commands.insert();
  const { result } = await watch(id, { baseUrl });
  await becomes(() => result.current, { status: 'running', connectionState: 'open' });
  expect(await client.fetchQuery(jobQueryOptions(id, { baseUrl }))).toMatchObject({ id });
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
  await eventually(() => expect(onComplete).toHaveBeenCalledTimes(2));
});

test('a job without a total that has ended is not taken back by an answer that lags behind', async () => {
  const id = await commands.insert(ada, 0);
  let answer = { title: 'x', status: 'running' };
  const { result } = await renderHook(
    () => ({ query: useQuery({ queryKey: jobKey(id), queryFn: async () => answer, staleTime: Infinity }), job: useJobProgress(id, { EventSource: Counted }) }),
    { wrapper },
  );
  await becomes(() => result.current.job, { status: 'running', progress: null });
  await commands.finish(id);
  await becomes(() => result.current.job, { status: 'completed', connectionState: 'closed' });
  answer = { title: 'y', status: 'running' };
  await client.refetchQueries({ queryKey: jobKey(id) });
  await eventually(() => expect(result.current.query.data).toEqual({ title: 'y', status: 'completed' }));
  await becomes(() => result.current.job, { status: 'completed', connectionState: 'closed' });
});

test("another's job ends with an error, not with a loop", async () => {
  const id = await commands.insert(ben);
  const onSettled = vi.fn();
  const { result } = await watch(id, { onSettled });
  await becomes(() => result.current, { connectionState: 'closed', connectionError: { code: 'job_not_found', status: 404 }, error: null, status: null });
  expect(onSettled).not.toHaveBeenCalled();
});

test('a page may open the stream before the job is inserted', async () => {
  const id = crypto.randomUUID();
  const { result } = await watch(id);
  await new Promise((resolve) => setTimeout(resolve, 5000)); // longer than the server waits
  expect(result.current).toMatchObject({ connectionState: 'connecting', connectionError: null });
  await commands.sql(`insert into job (id, account_id, type, status, progress) values ($1, '00000000-0000-4000-8000-00000000000a', 'matching', 'pending', '{"total": 3}')`, [id]);
  await becomes(() => result.current, { connectionState: 'open', status: 'pending' });
});

test('a deleted job does not go on', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { status: 'running' });
  await commands.sql('delete from job where id = $1', [id]);
  await becomes(() => result.current, { status: null, error: 'job no longer exists', connectionState: 'closed', connectionError: { code: 'job_not_found' } });
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
  await becomes(() => result.current, { connectionState: 'reconnecting', error: null, connectionError: { code: 'unauthenticated', status: 401, message: expect.stringContaining('token') } });
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

test('a page that missed nothing while it was away is connected again, though it is told nothing', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { connectionState: 'open' });
  const streams = Counted.opened.length;
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

const job = (status: string, done: number) => Response.json({ id: 'x', status, progress: { done, total: 2, succeeded: done, failed: 0 }, error: null });

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
  watched.subscribe(() => states.push(watched.getState().connectionState, watched.getState().progress?.done, watched.getState().connectionError?.code));
  await becomes(watched.getState, { connectionState: 'closed', status: 'completed', progress: { done: 2 }, connectionError: null });
  expect(GivesUp.opened).toBeLessThanOrEqual(3); // with a growing pause between them
  expect(asked).toEqual(Array(3).fill('/api/jobs/x'));
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
  ["the application's own job", () => Response.json({ id: 'x', status: 7, state: 'done' })],
  ['another job', () => Response.json({ id: 'y', status: 'completed', progress: {}, error: null })],
  ["a router's 404", () => new Response('404 page not found', { status: 404 })],
] as const)('an answer that is not ours (%s) is not believed, and said', async ([, answer]) => {
  const watched = watchJob('/api/jobs/x/progress', { EventSource: GivesUp, fetch: async () => answer() });
  await becomes(watched.getState, { connectionState: 'reconnecting', status: null, connectionError: { code: 'unexpected_answer', status: answer().status } });
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
] as const)('after sleep (%s) the JSON state is asked for at once, and a link that says nothing is replaced', async ([type, target]) => {
  const id = await commands.insert();
  let asked = 0;
  const { result } = await watch(id, {
    fetch: (...args) => {
      asked++;
      return fetch(...args);
    },
  });
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.signalOrigin('SIGSTOP');
  await eventually(() => expect(asked).toBe(1)); // for the entry in the cache
  const streams = Counted.opened.length;
  target().dispatchEvent(new Event(type));
  await eventually(() => expect(asked).toBeGreaterThan(1));
  await eventually(() => expect(Counted.opened.length).toBe(streams + 1));
  await commands.signalOrigin('SIGCONT');
  await becomes(() => result.current, { connectionState: 'open' });
});

test('after sleep a state that is older than the row is not kept', async () => {
  const id = await commands.insert();
  let deaf = true;
  class Deaf extends Counted {
    set onmessage(listener: (event: MessageEvent) => unknown) {
      super.onmessage = (event) => (deaf && event.data.includes('"done":8') ? undefined : listener(event));
    }
  }
  const { result } = await watch(id, { EventSource: Deaf });
  await becomes(() => result.current, { connectionState: 'open' });
  await commands.progress(id, 8);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(result.current.progress?.done).toBe(0);
  deaf = false;
  document.dispatchEvent(new Event('resume'));
  await becomes(() => result.current, { progress: { done: 8 }, connectionState: 'open' });
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

test('a watch may be closed by whoever listens', async () => {
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
  await commands.sql(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'jobprogress%'`);
  await becomes(() => result.current, { connectionState: 'degraded', isConnected: true });
  await commands.sql(`update pg_database set datallowconn = true where datname = $1`, [name]);
  await becomes(() => result.current, { connectionState: 'open' });
});

test('a server that has lost its database says nothing of the next one', async () => {
  const sources: { hear(type: string, data: string): void; cut(): void }[] = [];
  class Told {
    readyState = 1;
    onmessage = null;
    onerror: ((event: Event) => unknown) | null = null;
    listeners = new Map<string, (event: MessageEvent) => unknown>();
    constructor() {
      sources.push(this);
    }
    addEventListener(type: string, listener: (event: MessageEvent) => unknown) {
      this.listeners.set(type, listener);
    }
    hear(type: string, data: string) {
      this.listeners.get(type)!(new MessageEvent(type, { data }));
    }
    cut() {
      this.readyState = 0;
      this.onerror!(new Event('error'));
    }
    close() {}
  }
  const watched = watchJob('/api/jobs/x/progress', { EventSource: Told, fetch: () => new Promise(() => {}) });
  sources[0]!.hear('heartbeat', '{"interval":30000}');
  sources[0]!.hear('bus', '{"state":"degraded"}');
  sources[0]!.hear('heartbeat', '{"interval":30000}');
  await becomes(watched.getState, { connectionState: 'degraded', isConnected: true, staleSince: expect.any(Number) });
  sources[0]!.cut(); // and it comes back elsewhere by itself, at once
  sources[0]!.hear('heartbeat', '{"interval":30000}');
  await becomes(watched.getState, { connectionState: 'open', staleSince: null });
  watched.close();
});

test('what is not as it should be changes nothing', async () => {
  const frames = [
    '{"type":"novelty","x":1}', 'no json', '7', 'null', '[]', '{"type":"item","itemKind":"song","status":"queued"}',
    '{"type":"item","itemId":"s1","itemKind":"song","status":7}', '{"type":"status","status":7}', '{"type":"error","message":{}}',
    '{"type":"progress","done":-5,"total":1e99,"succeeded":"x"}', '{"type":"status","status":"running"}',
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
