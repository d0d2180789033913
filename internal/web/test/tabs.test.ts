// Tabs of one origin, in one browser, over HTTP/1.1.

import type { BrowserContext, Page } from 'playwright';
import { expect, test } from 'vitest';
import { ada, ben, eventually, token } from './origin.js';
import { useSite } from './site.js';

const its = useSite();

interface Watching {
  watchJobs(
    url: string,
    options?: object,
  ): { getState(): { jobs: Map<string, { status: string; progress: { done: number } | null }>; connectionState: string } };
  acrossTabs(account: string): unknown;
  watched: ReturnType<Watching['watchJobs']>;
}

/** A tab that watches, for the account, what the query names. */
async function open(context: BrowserContext, account: string, query = ''): Promise<Page> {
  const page = await context.newPage();
  await page.goto(`${its.site.url}/page`);
  await page.waitForFunction('window.acrossTabs');
  await page.evaluate(
    ([url, account]) => {
      const own = window as unknown as Watching;
      own.watched = own.watchJobs(url!, { EventSource: own.acrossTabs(account!) });
    },
    [`/api/jobs/progress${query}`, account] as const,
  );
  return page;
}

const state = (page: Page) =>
  page.evaluate(() => {
    const { jobs, connectionState } = (window as unknown as Watching).watched.getState();
    return { connectionState, done: Object.fromEntries([...jobs].map(([id, { progress }]) => [id, progress?.done])) };
  });
const shows = (pages: Page[], id: string, done: number) =>
  eventually(`${done}`, async () =>
    (await Promise.all(pages.map(state))).every((shown) => shown.done[id] === done && shown.connectionState === 'open'),
  );
const streams = () => its.origin.metric('jobprogress_streams_open');

/** The tab that has the stream; it holds the lock of the account. */
async function leader(pages: Page[]): Promise<Page> {
  for (const page of pages) {
    const leads = await page.evaluate(async () => {
      const { held = [] } = await navigator.locks.query();
      const mine = await new Promise<string | undefined>((resolve) => {
        const { clientId } = held.find(({ name }) => name!.split(' ').length === 2) ?? {};
        void navigator.locks.request('who am I', async () => {
          const now = await navigator.locks.query();
          resolve(now.held!.some((lock) => lock.name === 'who am I' && lock.clientId === clientId) ? clientId : undefined);
        });
      });
      return mine !== undefined;
    });
    if (leads) return page;
  }
  throw new Error('no tab leads');
}

async function tabs(count: number): Promise<{ context: BrowserContext; pages: Page[]; id: string }> {
  await its.origin.sql('delete from job');
  const id = await its.origin.insert();
  const context = await its.browser.newContext();
  await context.addCookies([{ name: 'session', value: token(), url: its.site.url }]);
  const pages: Page[] = [];
  for (let i = 0; i < count; i++) pages.push(await open(context, ada));
  await shows(pages, id, 0);
  return { context, pages, id };
}

test('ten tabs have one stream, and a leader that goes is replaced', async () => {
  const { context, pages, id } = await tabs(10);
  expect(await streams()).toBe(1);
  let done = 0;
  const after: string[] = [];
  const replaced = async (how: string, leave: (page: Page) => Promise<unknown>) => {
    const first = await leader(pages);
    const others = pages.filter((page) => page !== first);
    const begun = Date.now();
    await leave(first);
    await its.origin.progress(id, ++done);
    await shows(others, id, done);
    after.push(`${how}: right after ${Date.now() - begun} ms`);
    await eventually('one stream', async () => (await streams()) === 1);
    return first;
  };
  const gone = (page: Page) => pages.splice(pages.indexOf(page), 1);
  gone(await replaced('closed', (page) => page.close()));
  gone(
    await replaced('crashed', async (page) => {
      const crashed = page.waitForEvent('crash');
      void page.goto('chrome://crash').catch(() => {});
      await crashed;
    }),
  );
  const set = async (page: Page, state: 'frozen' | 'active') => (await context.newCDPSession(page)).send('Page.setWebLifecycleState', { state });
  const frozen = await replaced('frozen', (page) => set(page, 'frozen'));
  await set(frozen, 'active');
  await shows(pages, id, done);
  const hung = await replaced('hung', (page) => {
    void page.evaluate(() => {
      for (const end = Date.now() + 4000; Date.now() < end; );
    });
    return Promise.resolve();
  });
  await shows([hung], id, done); // awake again, and one of the others
  await its.origin.progress(id, ++done);
  await shows(pages, id, done);
  await eventually('one stream', async () => (await streams()) === 1); // the one that hung may just be opening its own again
  console.log(after.join('\n'));
  await context.close();
});

test('tabs that watch different jobs have one stream, and other accounts none of it', async () => {
  const { context, pages, id } = await tabs(1);
  const others = [await its.origin.insert(), await its.origin.insert()];
  const named = [await open(context, ada, `?id=${others[0]}`), await open(context, ada, `?id=${others[1]}&id=${id}`)];
  await shows([named[0]!], others[0]!, 0);
  await shows([named[1]!], others[1]!, 0);
  expect(Object.keys((await state(named[0]!)).done)).toEqual([others[0]]);
  expect(await streams()).toBe(2); // of the list, and of what is named
  // Somebody else signs in, and this tab says so.
  await context.addCookies([{ name: 'session', value: token(ben), url: its.site.url }]);
  const theirs = await its.origin.insert(ben);
  const other = await open(context, ben);
  await shows([other], theirs, 0);
  expect(Object.keys((await state(other)).done)).toEqual([theirs]);
  expect(Object.keys((await state(pages[0]!)).done)).not.toContain(theirs);
  expect(await streams()).toBe(3);
  await Promise.all([...pages, ...named].map((page) => page.close()));
  await eventually('one stream', async () => (await streams()) === 1);
  await context.close();
});

test('without locks, or without a channel, a tab has its own stream', async () => {
  await its.origin.sql('delete from job');
  const id = await its.origin.insert();
  for (const missing of ['delete Navigator.prototype.locks', 'delete window.BroadcastChannel']) {
    const context = await its.browser.newContext();
    await context.addInitScript(missing);
    await context.addCookies([{ name: 'session', value: token(), url: its.site.url }]);
    const pages = [await open(context, ada), await open(context, ada)];
    await shows(pages, id, 0);
    expect(await streams()).toBe(2);
    await context.close();
    await eventually('no stream', async () => (await streams()) === 0);
  }
});
