import { dehydrate, hydrate, QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { expect, test, vi } from 'vitest';
import { commands } from 'vitest/browser';
import { render, renderHook } from 'vitest-browser-react';
import { jobKey, jobQueryOptions, useJobProgress } from '../src/index.js';
import { ada, becomes, client, Counted, eventually, watch, wrapper } from './harness.js';

test('shows a job from its first state to its last', async () => {
  const id = await commands.insert();
  const onComplete = vi.fn();
  const onFailed = vi.fn();
  const { result } = await watch(id, { onComplete, onFailed });
  await becomes(() => result.current, {
    status: 'running',
    progress: { done: 0, total: 10, succeeded: 0, failed: 0 },
    connectionState: 'open',
    isConnected: true,
    error: null,
  });

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

test('a job that had ended before is reported once, and not as an end that happened', async () => {
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

test('a component that comes when the job has ended is called for that alone', async () => {
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

test('from one job to another and back: each end is reported once', async () => {
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
      <QueryClientProvider client={client}>
        {Array.from({ length: n }, (_, i) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: they are all the same
          <One key={i} />
        ))}
      </QueryClientProvider>
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
  await eventually(() =>
    expect(result.current.query.data).toEqual({ title: 'first', progress: { done: 4, total: 10, succeeded: 4, failed: 0 }, status: 'running' }),
  );

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
      const query = useQuery({
        queryKey: jobKey(id),
        queryFn: () => new Promise<{ progress: { done: number } }>((resolve) => (answer = resolve as never)),
        staleTime: Infinity,
      });
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
  await eventually(() =>
    expect(result.current.query.data).toEqual({ title: 'late', progress: { done: 9, total: 10, succeeded: 9, failed: 0 }, status: 'running' }),
  );
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
  await eventually(() =>
    expect(result.current.query.data).toEqual({ title: 'x', status: 'running', progress: { done: 2, total: 10, succeeded: 2, failed: 0 } }),
  );
});

test.for([
  ['an array', [1, 2]],
  ['a text', 'mine'],
] as const)('%s that the application keeps there stays', async ([, kept]) => {
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
  expect(
    client
      .getQueryCache()
      .getAll()
      .map(({ queryKey }) => queryKey),
  ).toEqual([['mine', a]]);
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
  const opened: number[] = [];
  const { result, rerender } = await renderHook(
    (props?: { n: number }) =>
      useJobProgress(id, {
        EventSource: class extends Counted {
          constructor(url: string, init?: EventSourceInit) {
            super(url, init);
            opened.push(props!.n);
          }
        },
        onComplete: () => told.push(props!.n),
      }),
    { wrapper, initialProps: { n: 0 } },
  );
  await becomes(() => result.current, { status: 'running' });
  for (let n = 1; n <= 20; n++) await rerender({ n });
  expect(opened).toEqual([0]);
  window.dispatchEvent(new Event('online'));
  expect(opened).toEqual([0, 20]);
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

test('a job that is started again is watched again when the application finds it so', async () => {
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
    () => ({
      query: useQuery({ queryKey: jobKey(id), queryFn: async () => answer, staleTime: Infinity }),
      job: useJobProgress(id, { EventSource: Counted }),
    }),
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

test('a query that is mounted later fetches what the stream does not say, and an error of its own stays', async () => {
  const id = await commands.insert();
  const { result } = await watch(id);
  await becomes(() => result.current, { status: 'running' });
  const later = await renderHook(
    () => useQuery({ queryKey: jobKey(id), queryFn: async () => ({ title: 'x' }) as { title: string; status?: string }, staleTime: Infinity }),
    { wrapper },
  );
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
  server.setQueryData(
    jobKey(id),
    { title: 'x', status: 'running', progress: { done: 3, total: 10, succeeded: 3, failed: 0 } },
    { updatedAt: Date.now() + 1000 },
  );
  hydrate(client, dehydrate(server));
  expect(client.getQueryData(jobKey(id))).toMatchObject({ title: 'x', status: 'completed', progress: { done: 10 } });
});
