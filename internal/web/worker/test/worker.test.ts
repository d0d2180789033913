// The Worker in workerd, before the real server, and a real Chromium before both.

import { createServer, type ServerResponse } from 'node:http';
import { Miniflare } from 'miniflare';
import { chromium, type Browser, type Page } from 'playwright';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ada, ben, chromium as executablePath, chromiumArgs, eventually, freePort, heartbeat, Origin, token } from '../../test/origin.js';

let origin: Origin;
let worker: Miniflare;
let edge: Miniflare; // where the sessions are the edge's
let url: string;
let edgeURL: string;
let browser: Browser;

const start = (bindings: Record<string, string>, port = origin.port) =>
  new Miniflare({
    host: '127.0.0.1',
    port: 0,
    cf: false,
    modules: true,
    modulesRules: [{ type: 'ESModule', include: ['**/*.js'] }],
    modulesRoot: 'worker/dist',
    scriptPath: 'worker/dist/index.js',
    compatibilityDate: '2026-04-26',
    compatibilityFlags: ['enable_request_signal'],
    bindings: { ORIGIN: 'http://jobs-origin.example', ...bindings },
    kvNamespaces: ['SESSIONS'],
    outboundService: { external: { address: `127.0.0.1:${port}`, http: {} } }, // and nowhere else
  });

beforeAll(async () => {
  origin = await new Origin(await freePort(), await freePort()).open();
  worker = start({});
  edge = start({ JWT_SECRET: Origin.secret, SESSION_COOKIE: 'sid' });
  url = (await worker.ready).origin;
  edgeURL = (await edge.ready).origin;
  browser = await chromium.launch({ executablePath, args: chromiumArgs });
});

afterAll(async () => {
  await browser?.close();
  await worker?.dispose();
  await edge?.dispose();
  await origin?.close();
});

const stream = (id: string) => `/api/jobs/${id}/progress`;
const bearer = (account = ada) => ({ Authorization: `Bearer ${token(account)}` });

interface Heard {
  data: string;
  at: number;
}

/** A page of the Worker's origin that listens to a job. */
async function listen(
  id: string,
): Promise<{ page: Page; received: () => Promise<Heard[]>; receives: (text: string) => Promise<void>; state: () => Promise<number> }> {
  const context = await browser.newContext();
  await context.addCookies([{ name: 'session', value: token(), url }]);
  const page = await context.newPage();
  await page.goto(`${url}/api/jobs/${id}`);
  await page.evaluate(
    (path) => {
      const own = globalThis as unknown as { received: Heard[]; source: EventSource };
      own.received = [];
      own.source = new EventSource(path);
      const take = ({ data }: MessageEvent) => own.received.push({ data, at: performance.now() });
      own.source.onmessage = take;
      own.source.addEventListener('heartbeat', (event) => take(new MessageEvent('x', { data: `heartbeat ${event.data}` })));
    },
    `${stream(id)}?heartbeat=1`,
  );
  const received = () => page.evaluate(() => (globalThis as unknown as { received: Heard[] }).received);
  return {
    page,
    received,
    receives: (text) => eventually(`received: ${text}`, async () => (await received()).some(({ data }) => data.includes(text))),
    state: () => page.evaluate(() => (globalThis as unknown as { source: EventSource }).source.readyState),
  };
}

test('a whole job arrives as it happens, pings too', async () => {
  const id = await origin.insert();
  const { received, receives, state, page } = await listen(id);
  await receives('"status":"running"');
  for (let done = 1; done <= 5; done++) {
    await origin.progress(id, done);
    await receives(`"done":${done},`); // before the next one is written
  }
  await receives('heartbeat');
  await origin.item(id, 's1', 'succeeded', 'Artist – Title');
  await receives('"itemId":"s1"');
  await origin.finish(id);
  await receives('"status":"completed"');
  await eventually('closed', async () => (await state()) === 2); // by the 204 that it came back to
  const times = (await received()).filter(({ data }) => data.includes('progress')).map(({ at }) => at);
  expect(new Set(times).size).toBe(times.length);
  expect(times).toEqual([...times].sort((a, b) => a - b));
  await page.context().close();
});

test('the origin is killed and started again: the same EventSource is right again', async () => {
  const id = await origin.insert();
  const { receives, received, state, page } = await listen(id);
  await receives('running');
  await origin.progress(id, 3);
  await receives('"done":3,');
  await origin.stop();
  await eventually('away', async () => (await state()) === 0);
  await origin.progress(id, 7);
  // It is sent to come back, and does.
  const answer = await fetch(url + stream(id), { headers: { ...bearer(), Accept: 'text/event-stream' } });
  expect([answer.status, answer.headers.get('Content-Type')]).toEqual([200, 'text/event-stream']);
  expect(await answer.text()).toMatch(/^retry: \d{4}\n: upstream_unavailable\n\n$/);
  const json = await fetch(`${url}/api/jobs/${id}`, { headers: bearer() });
  expect([json.status, (await json.json()).code]).toEqual([503, 'upstream_unavailable']);
  expect(Number(json.headers.get('Retry-After'))).toBeGreaterThan(0);
  await origin.start();
  await receives('"done":7,');
  expect((await received()).filter(({ data }) => data.includes('"done":0,'))).toHaveLength(1);
  await page.context().close();
});

test("a tab is closed: the origin's stream ends with its next ping", async () => {
  const id = await origin.insert();
  const { receives, page } = await listen(id);
  await receives('running');
  await eventually('the only one', async () => (await origin.metric('jobprogress_streams_open')) === 1);
  const closed = Date.now();
  await page.close();
  await eventually('ended', async () => (await origin.metric('jobprogress_streams_open')) === 0);
  console.log(`ended ${Date.now() - closed} ms after the tab was closed, with a ping each ${heartbeat} ms`);
  await page.context().close();
});

test('what the origin answers comes through as it is', async () => {
  const id = await origin.insert();
  for (const [path, init, status] of [
    [stream(id), {}, 401],
    [stream(id), { headers: bearer(ben) }, 404],
    [stream('nonsense'), { headers: bearer() }, 400],
    [stream(id), { method: 'POST', body: 'x', headers: bearer() }, 405],
    [stream(id), { headers: { ...bearer(), Origin: 'https://evil.example' } }, 403],
    [`/api/jobs/${id}`, { headers: bearer() }, 200],
    [`/api/jobs/${id}`, { headers: { ...bearer(), Origin: url } }, 200], // the Worker's own
    ['/api/jobs', { headers: bearer() }, 200],
    ['/api/jobs/progress', { headers: bearer() }, 200],
    [`/api/jobs/progress?id=${id}`, { headers: bearer() }, 200],
    ['/api/jobsite', { headers: bearer() }, 404],
    [`/api/jobs/${id}`, { headers: { Cookie: `a=b; session=${token()}` } }, 200],
    ['/', {}, 404],
  ] as [string, RequestInit, number][]) {
    const answer = await fetch(url + path, init);
    expect([path, answer.status]).toEqual([path, status]);
    await answer.body?.cancel();
  }
  const job = await fetch(`${url}/api/jobs/${id}`, { headers: bearer() });
  const unchanged = await fetch(`${url}/api/jobs/${id}`, { headers: { ...bearer(), 'If-None-Match': job.headers.get('ETag')! } });
  expect(unchanged.status).toBe(304);

  await origin.finish(id);
  const ended = await fetch(url + stream(id), { headers: bearer() });
  expect(ended.headers.get('Content-Encoding')).toBeNull();
  expect(ended.headers.get('Cache-Control')).toBe('no-cache, no-transform');
  const whole = await ended.text();
  const last = /id: (final-\S+)/.exec(whole)![1]!;
  const again = await fetch(url + stream(id), { headers: { ...bearer(), 'Last-Event-ID': last } });
  expect(again.status).toBe(204);
});

test('a session of the edge becomes a token for the origin', async () => {
  const id = await origin.insert();
  const sessions = await edge.getKVNamespace('SESSIONS');
  await sessions.put('session:session-of-ada', ada);
  await sessions.put('session:session-of-ben', ben);
  const ask = async (headers: Record<string, string>) => (await fetch(`${edgeURL}/api/jobs/${id}`, { headers })).status;
  expect(await ask({ Cookie: 'other=1; sid=session-of-ada' })).toBe(200);
  expect(await ask({ Cookie: 'sid="session-of-ada"' })).toBe(200);
  expect(await ask({ Cookie: 'sid=session-of-ben' })).toBe(404);
  await sessions.put('other', ada);
  for (const value of ['invented', 'other', '..', '%2e', 'x'.repeat(600), 'a b', '']) {
    expect([value, await ask({ Cookie: `sid=${value}` })]).toEqual([value, 401]);
  }
  expect(await ask({})).toBe(401);
  expect(await ask({ Cookie: `session=${token()}` })).toBe(401); // goes no further
  expect(await ask(bearer())).toBe(401);
});

/** Somebody before the origin, who answers for it. */
async function before(
  answer: (url: string, outgoing: ServerResponse) => void,
  bindings: Record<string, string>,
  use: (base: string) => Promise<void>,
) {
  const proxy = createServer((incoming, outgoing) => answer(incoming.url!, outgoing)).listen(0, '127.0.0.1');
  await new Promise((resolve) => proxy.once('listening', resolve));
  const behind = start(bindings, (proxy.address() as { port: number }).port);
  try {
    await use((await behind.ready).origin);
  } finally {
    await behind.dispose();
    proxy.closeAllConnections();
    proxy.close();
  }
}

const html = { 'Content-Type': 'text/html' };
const comeBack = expect.stringMatching(/^retry: \d{4}\n: upstream_unavailable\n\n$/);

test.for([
  ['a gateway without a server', 502, html, 503],
  ['a limit', 429, html, 429],
  ['a fault', 500, html, 500],
  ['a challenge', 403, html, 403],
  ['a page', 200, html, 200],
  ['a login', 302, { Location: '/login' }, 302],
] as const)('EventSource comes back from %s, and everybody else is sent', async ([, status, headers, told]) => {
  await before(
    (_, outgoing) => outgoing.writeHead(status, headers).end('<h1>Sorry</h1>'),
    {},
    async (base) => {
      const stream = await fetch(`${base}/api/jobs/x/progress`, { headers: { Accept: 'text/event-stream' } });
      expect([stream.status, stream.headers.get('Content-Type'), await stream.text()]).toEqual([200, 'text/event-stream', comeBack]);
      const many = await fetch(`${base}/api/jobs/progress`, { headers: { Accept: 'text/event-stream' } });
      expect([many.status, await many.text()]).toEqual([200, comeBack]);
      expect((await fetch(`${base}/api/jobs/x`, { redirect: 'manual' })).status).toBe(told);
    },
  );
});

test('an origin that never answers holds nobody', async () => {
  await before(
    () => {},
    { ANSWER_TIMEOUT: '300' },
    async (base) => {
      const stream = await fetch(`${base}/api/jobs/x/progress`, { headers: { Accept: 'text/event-stream' } });
      expect([stream.status, await stream.text()]).toEqual([200, comeBack]);
      expect((await fetch(`${base}/api/jobs/x`)).status).toBe(503);
    },
  );
});

test('the deadline is for the head of the answer only', async () => {
  const begin = (_: string, outgoing: ServerResponse) => {
    outgoing.writeHead(200, { 'Content-Type': 'text/event-stream', 'Set-Cookie': 'lb=1' }).write(': ping\n\n');
    setTimeout(() => outgoing.end('data: {}\n\n'), 1000);
  };
  await before(begin, { ANSWER_TIMEOUT: '300' }, async (base) => {
    const stream = await fetch(`${base}/api/jobs/x/progress`, { headers: { Accept: 'text/event-stream' } });
    expect(stream.headers.get('Set-Cookie')).toBeNull();
    expect(await stream.text()).toBe(': ping\n\ndata: {}\n\n');
  });
});

test("a page of another origin may read the Worker's own answers, if it may read the service's", async () => {
  await before(
    (_, outgoing) => outgoing.writeHead(502).end(),
    { ALLOWED_ORIGINS: 'https://a.example, https://b.example' },
    async (base) => {
      for (const [origin, allowed] of [
        ['https://b.example', 'https://b.example'],
        ['https://evil.example', null],
      ] as const) {
        const answer = await fetch(`${base}/api/jobs/x/progress`, { headers: { Accept: 'text/event-stream', Origin: origin } });
        expect([answer.headers.get('Access-Control-Allow-Origin'), answer.headers.get('Vary')]).toEqual([allowed, 'Origin']);
        expect(await answer.text()).toEqual(comeBack);
      }
    },
  );
});
