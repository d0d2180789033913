// Many jobs of a page: by one stream.

import { hashKey, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { expect, test, vi } from 'vitest';
import { commands } from 'vitest/browser';
import { render, renderHook } from 'vitest-browser-react';
import { jobKey, jobsKey, useJobProgress, useJobs, watchJobs, type JobState, type UseJobsOptions } from '../src/index.js';
import { ada, becomes, ben, client, Counted, eventually, watch, wrapper } from './harness.js';

const insert = (count: number) =>
  commands
    .sql(
      `insert into job (id, account_id, type, status, progress, started_at)
       select gen_random_uuid(), $1, 'matching', 'running', jsonb_build_object('total', 10), now() from generate_series(1, $2) returning id`,
      [ada, count],
    )
    .then((rows) => rows.map(({ id }) => id as string));

function watchMany(ids?: string[], options: UseJobsOptions = {}) {
  return renderHook((props?: { ids: string[] | undefined }) => useJobs(props ? props.ids : ids, { EventSource: Counted, ...options }), { wrapper });
}

test('fifty rows are one stream, and a row more is one stream more, at which nothing flickers', async () => {
  const ids = await insert(51);
  const shown: string[] = [];
  const Row = ({ id }: { id: string }) => {
    const { status, connectionState } = useJobProgress(id, { EventSource: Counted });
    if (id === ids[0]) shown.push(`${status} ${connectionState}`);
    return <p>{status}</p>;
  };
  const rows = (n: number) => (
    <StrictMode>
      <QueryClientProvider client={client}>
        {ids.slice(0, n).map((id) => (
          <Row key={id} id={id} />
        ))}
      </QueryClientProvider>
    </StrictMode>
  );
  const screen = await render(rows(50));
  await eventually(() => expect(screen.container.textContent).toBe('running'.repeat(50)));
  expect(Counted.opened).toHaveLength(1);
  await screen.rerender(rows(51));
  await eventually(() => expect(screen.container.textContent).toBe('running'.repeat(51)));
  expect(Counted.opened).toHaveLength(2);
  expect(Counted.open).toBe(1);
  await eventually(async () => expect(await commands.metric('jobprogress_streams_open')).toBe(1));
  expect([...new Set(shown)]).toEqual(['null connecting', 'running open']);

  // A few that go need no other stream; when most have gone, the others are not sent any more.
  await screen.rerender(rows(40));
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(Counted.opened).toHaveLength(2);
  await screen.rerender(rows(2));
  await eventually(() => expect(Counted.opened).toHaveLength(3));
  expect(new URL(Counted.opened[2]!.url).searchParams.getAll('id')).toEqual(ids.slice(0, 2));
  await screen.unmount();
  await eventually(() => expect(Counted.open).toBe(0));
});

test('a hundred and twenty jobs are two streams', async () => {
  const ids = await insert(120);
  const { result } = await watchMany(ids);
  await eventually(() => expect([...result.current.jobs.values()].every(({ status }) => status === 'running')).toBe(true));
  expect([...result.current.jobs.keys()]).toEqual(ids);
  expect(Counted.opened).toHaveLength(2);
});

test('each job of a page has an end of its own', async () => {
  const [a, b] = (await insert(2)) as [string, string];
  const told: string[] = [];
  const one = (id: string, name: string) =>
    watch(id, { onComplete: () => told.push(`${name} complete`), onFailed: ({ error }) => told.push(`${name} ${error}`) });
  const [first, second] = [await one(a, 'a'), await one(b, 'b')];
  await becomes(() => second.result.current, { connectionState: 'open' });
  await commands.finish(a);
  await becomes(() => first.result.current, { status: 'completed', connectionState: 'closed', isConnected: false });
  expect(second.result.current).toMatchObject({ status: 'running', connectionState: 'open' });
  expect(Counted.open).toBe(1);
  // It is started again: the stream of the others says so.
  await commands.sql(`update job set status = 'running' where id = $1`, [a]);
  await becomes(() => first.result.current, { status: 'running', connectionState: 'open' });
  await commands.finish(a);
  await commands.finish(b, 'failed', 'odd');
  await becomes(() => second.result.current, { status: 'failed', connectionState: 'closed' });
  await eventually(() => expect(Counted.open).toBe(0));
  expect(told).toEqual(['a complete', 'a complete', 'b odd']);
});

test("the account's list: what there is, what comes, and what goes", async () => {
  await commands.sql('delete from job');
  const [old] = (await insert(1)) as [string];
  await commands.sql(`update job set created_at = now() - interval '1 minute' where id = $1`, [old]);
  const recent = await commands.insert();
  const theirs = await commands.insert(ben);
  const { result } = await watchMany();
  const ids = () => [...result.current.jobs.keys()];
  await eventually(() => expect(ids()).toEqual([recent, old]));
  expect(result.current).toMatchObject({ connectionState: 'open', isConnected: true, error: null, staleSince: null });
  expect(result.current.jobs.get(old)).toMatchObject({
    status: 'running',
    progress: { total: 10 },
    job: { id: old, type: 'matching' },
    connectionState: 'open',
  });

  const later = await commands.insert();
  await eventually(() => expect(ids()).toEqual([later, recent, old]));
  await commands.progress(later, 4);
  await eventually(() => expect(result.current.jobs.get(later)?.progress?.done).toBe(4));
  await commands.sql('update job set account_id = $2 where id = $1', [theirs, ada]);
  await eventually(() => expect(ids()).toContain(theirs));
  await commands.sql('delete from job where id = $1', [recent]);
  await eventually(() => expect(ids()).not.toContain(recent));
  await commands.finish(old);
  await eventually(() => expect(result.current.jobs.get(old)).toMatchObject({ status: 'completed', connectionState: 'closed' }));
  expect(result.current.connectionState).toBe('open');
  expect(Counted.opened).toHaveLength(1);

  // In the cache, too.
  await eventually(() => expect(client.getQueryData(jobKey(later))).toMatchObject({ id: later, type: 'matching', progress: { done: 4 } }));
  const rows = client.getQueryData<{ id: string; status: string }[]>(jobsKey)!;
  expect(rows.map(({ id }) => id)).toEqual(ids());
  expect(rows.find(({ id }) => id === old)).toMatchObject({ status: 'completed', error: null });

  // What goes while the stream is away is gone when it is back.
  await commands.stopOrigin();
  await commands.sql('delete from job where id = $1', [later]);
  await eventually(() => expect(result.current.connectionState).toBe('reconnecting'));
  expect(ids()).toContain(later);
  await commands.startOrigin();
  await eventually(() => expect(result.current.connectionState).toBe('open'));
  await eventually(() => expect(ids()).not.toContain(later));
  await commands.sql('delete from job');
  await eventually(() => expect(client.getQueryData(jobsKey)).toEqual([]));
});

test("the list of the application's own stays its own, and live", async () => {
  const id = await commands.insert();
  const { result } = await renderHook(
    () => {
      const query = useQuery({
        queryKey: jobsKey,
        queryFn: async () => [{ id, title: 'mine', status: 'old' }, { id: 'other' }],
        staleTime: Infinity,
      });
      return { query, jobs: useJobs(undefined, { EventSource: Counted }) };
    },
    { wrapper },
  );
  await eventually(() =>
    expect(result.current.query.data).toEqual([
      { id, title: 'mine', status: 'running', progress: { done: 0, total: 10, succeeded: 0, failed: 0 } },
      { id: 'other' },
    ]),
  );
  await commands.progress(id, 3);
  await eventually(() => expect(result.current.query.data?.[0]).toMatchObject({ title: 'mine', progress: { done: 3 } }));
  await client.refetchQueries({ queryKey: jobsKey });
  await eventually(() => expect(result.current.query.data?.[0]).toMatchObject({ title: 'mine', status: 'running', progress: { done: 3 } }));
});

test('named jobs: in order, live, and others at the next render', async () => {
  const [a, b, c] = (await insert(3)) as [string, string, string];
  const nobodys = crypto.randomUUID();
  const { result, rerender } = await watchMany([b, nobodys, a]);
  await eventually(() => expect(result.current.jobs.get(a)?.status).toBe('running'));
  expect([...result.current.jobs.keys()]).toEqual([b, nobodys, a]);
  expect(result.current.jobs.get(nobodys)).toMatchObject({ status: null, connectionState: 'connecting', connectionError: null });
  expect(result.current).toMatchObject({ connectionState: 'open', error: null });
  await commands.progress(a, 2);
  await eventually(() => expect(result.current.jobs.get(a)?.progress?.done).toBe(2));
  await rerender({ ids: [a, c] });
  expect(result.current.jobs.get(a)?.progress?.done).toBe(2);
  await eventually(() => expect(result.current.jobs.get(c)?.status).toBe('running'));
  expect([...result.current.jobs.keys()]).toEqual([a, c]);
  await commands.finish(a);
  await commands.finish(c);
  await eventually(() => expect(result.current.connectionState).toBe('closed'));
  await rerender({ ids: [] });
  expect(result.current).toMatchObject({ connectionState: 'idle', error: null });
  await eventually(() => expect(Counted.open).toBe(0));
});

test('what is no id, and what is not there, costs the others nothing', async () => {
  const [a] = (await insert(1)) as [string];
  const draft = await watch('temp-1');
  const upper = await watch(a.toUpperCase());
  await becomes(() => draft.result.current, { connectionState: 'closed', connectionError: { code: 'invalid_job_id', status: 400 } });
  await becomes(() => upper.result.current, { connectionState: 'open', status: 'running' });
  expect(upper.result.current).toMatchObject({ connectionState: 'open', connectionError: null });
  await commands.sql('delete from job where id = $1', [a]);
  await becomes(() => upper.result.current, { status: null, error: 'job no longer exists', connectionState: 'closed' });
});

test('one job in two spellings, several that are none, and one that comes after all', async () => {
  const [a] = (await insert(1)) as [string];
  const late = crypto.randomUUID();
  const { result } = await watchMany([a, 'temp-1', a.toUpperCase(), '', 'temp-2', late]);
  const states = () =>
    [...result.current.jobs.values()].map(({ status, connectionState, connectionError }) => [status, connectionState, connectionError?.code ?? null]);
  await eventually(() =>
    expect(states()).toEqual([
      ['running', 'open', null],
      [null, 'closed', 'invalid_job_id'],
      ['running', 'open', null],
      [null, 'closed', 'invalid_job_id'],
      [null, 'closed', 'job_not_found'],
    ]),
  );
  expect(Counted.opened).toHaveLength(2);
  const one = () => result.current.jobs.get(late)!;
  result.current.reconnect();
  await becomes(one, { connectionState: 'connecting', connectionError: null });
  await becomes(one, { connectionState: 'closed', connectionError: { code: 'job_not_found' } }); // and not for ever
  await commands.sql(`insert into job (id, account_id, type, status) values ($1, $2, 'matching', 'running')`, [late, ada]);
  await becomes(one, { status: 'running', connectionState: 'open', connectionError: null });
});

test('a job that has ended is seen to be started again', async () => {
  const [a, b] = (await insert(2)) as [string, string];
  const first = await watch(a);
  await watch(b);
  await becomes(() => first.result.current, { connectionState: 'open' });
  await commands.finish(a);
  await becomes(() => first.result.current, { connectionState: 'closed', status: 'completed' });
  // While another runs, whatever became of the stream in between …
  window.dispatchEvent(new Event('online'));
  await commands.sql(`update job set status = 'running' where id = $1`, [a]);
  await becomes(() => first.result.current, { connectionState: 'open', status: 'running' });
  // … and when nothing does, as soon as somebody comes.
  await commands.finish(a);
  await commands.finish(b);
  await eventually(() => expect(Counted.open).toBe(0));
  await commands.sql(`update job set status = 'running' where id = $1`, [a]);
  const second = await watch(a);
  await becomes(() => second.result.current, { connectionState: 'open', status: 'running' });
  await becomes(() => first.result.current, { connectionState: 'open', status: 'running' });
});

test('when all that are left have ended there is no stream', async () => {
  const [a, b] = (await insert(2)) as [string, string];
  const first = await watch(a);
  const second = await watch(b);
  await becomes(() => second.result.current, { connectionState: 'open' });
  await commands.finish(a);
  await becomes(() => first.result.current, { connectionState: 'closed' });
  await second.unmount();
  await eventually(() => expect(Counted.open).toBe(0));
});

test('two streams that show a job share its entry in the cache, also after it was cleared', async () => {
  const id = await commands.insert();
  const errors: unknown[] = [];
  const collect = (event: ErrorEvent) => errors.push(event.error);
  window.addEventListener('error', collect);
  const { result } = await renderHook(
    () => ({ list: useJobs(undefined, { EventSource: Counted }), one: useJobProgress(id, { EventSource: Counted }) }),
    { wrapper },
  );
  await becomes(() => result.current.one, { connectionState: 'open' });
  let events = 0;
  const stop = client.getQueryCache().subscribe(({ query }) => void (query.queryHash === hashKey(jobKey(id)) && events++));
  await commands.progress(id, 4);
  await eventually(() => expect(client.getQueryData(jobKey(id))).toMatchObject({ progress: { done: 4 } }));
  client.clear();
  await commands.progress(id, 5);
  await eventually(() => expect(client.getQueryData(jobKey(id))).toMatchObject({ id, progress: { done: 5 } }));
  await commands.finish(id, 'failed', 'odd');
  await eventually(() => expect(client.getQueryData(jobKey(id))).toMatchObject({ status: 'failed', error: 'odd' }));
  stop();
  expect(events).toBeLessThan(100);
  expect(errors).toEqual([]);
  window.removeEventListener('error', collect);
});

test('another account is another stream', async () => {
  const [theirs, mine] = [await commands.insert(ben), await commands.insert()];
  class OfAda extends Counted {
    static readonly key = 'ada';
  }
  class OfBen extends Counted {
    static readonly key = 'ben';
  }
  const { result, rerender } = await renderHook((props?: { ben: boolean }) => useJobs(undefined, { EventSource: props?.ben ? OfBen : OfAda }), {
    wrapper,
  });
  await eventually(() => expect(result.current.jobs.has(mine)).toBe(true));
  document.cookie = `session=${await commands.token(ben)}; path=/`;
  await rerender({ ben: true });
  expect(result.current.jobs.size).toBe(0);
  await eventually(() => expect([...result.current.jobs.keys()]).toContain(theirs));
  expect(result.current.jobs.has(mine)).toBe(false);
});

test('one component renews the credentials of all', async () => {
  const [a, b] = (await insert(2)) as [string, string];
  document.cookie = `session=${await commands.token(ada, 2)}; path=/`;
  const onUnauthorized = vi.fn(async () => void (document.cookie = `session=${await commands.token()}; path=/`));
  const first = await watch(a, { onUnauthorized });
  const second = await watch(b);
  await becomes(() => second.result.current, { connectionState: 'open' });
  await eventually(() => expect(onUnauthorized).toHaveBeenCalled());
  await commands.progress(a, 1);
  await becomes(() => first.result.current, { connectionState: 'open', progress: { done: 1 } });
});

/** A stream that a test writes. */
class Written {
  static all: Written[] = [];
  readyState = 1;
  onmessage: ((event: MessageEvent) => unknown) | null = null;
  onerror = null;
  private readonly listeners = new Map<string, (event: MessageEvent) => unknown>();
  constructor(readonly url: string) {
    Written.all.push(this);
  }
  addEventListener(type: string, listener: (event: MessageEvent) => unknown) {
    this.listeners.set(type, listener);
  }
  close() {}
  say(event: object, type = 'message') {
    const message = new MessageEvent(type, { data: JSON.stringify(event) });
    if (type === 'message') this.onmessage?.(message);
    else this.listeners.get(type)?.(message);
  }
}

test.for([
  ['completed', { status: 'completed', error: null, connectionError: null }],
  ['gone', { status: null, error: 'job no longer exists', connectionError: { code: 'job_not_found' } }],
] as const)('a row that was deleted while the stream was away: %s', async ([deleted, expected]) => {
  Written.all = [];
  const jobs = watchJobs('/api/jobs/progress?id=x&id=y', { EventSource: Written, fetch: () => new Promise(() => {}) });
  const state = (): JobState => jobs.getState().jobs.get('x')!;
  await eventually(() => expect(Written.all).toHaveLength(1));
  const say = (...ids: string[]) => {
    for (const id of ids) Written.all.at(-1)!.say({ type: 'job', jobId: id, job: { id, status: 'running', progress: {} } });
    Written.all.at(-1)!.say({ deleted }, 'synced');
  };
  say('x', 'y');
  await becomes(state, { status: 'running', connectionState: 'open' });
  jobs.reconnect();
  say('y');
  await becomes(state, { ...expected, connectionState: 'closed' });
  expect(jobs.getState().jobs.get('y')).toMatchObject({ status: 'running', connectionState: 'open' });
  jobs.close();
});

test('ids that would make a URL too long for a proxy are more than one stream', async () => {
  Written.all = [];
  const ids = Array.from({ length: 60 }, (_, i) => `${i} `.padEnd(200, 'ä'));
  const jobs = watchJobs(`/api/jobs/progress?${new URLSearchParams(ids.map((id) => ['id', id]))}`, {
    EventSource: Written,
    fetch: () => new Promise(() => {}),
  });
  const asked = () => Written.all.flatMap(({ url }) => new URL(url, location.href).searchParams.getAll('id'));
  await eventually(() => expect(asked()).toHaveLength(60));
  expect(asked()).toEqual(ids);
  expect(Written.all.filter(({ url }) => url.length > 8000)).toEqual([]);
  jobs.close();
});
