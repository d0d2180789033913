// What only a whole browser shows: its limits, and its sleep.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type Browser } from 'playwright';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { chromium as executablePath, chromiumArgs, eventually, freePort, heartbeat, Origin, token } from './origin.js';
import { FaultyProxy } from './proxy.js';

let plain: Origin;
let secure: Origin;
let browser: Browser;
let site: FaultyProxy; // serves the core, and puts the origin behind itself
const dir = mkdtempSync(join(tmpdir(), 'jobprogress-tls-'));

beforeAll(async () => {
  const goroot = execFileSync('go', ['env', 'GOROOT'], { encoding: 'utf8' }).trim();
  execFileSync('go', ['run', join(goroot, 'src/crypto/tls/generate_cert.go'), '--host', '127.0.0.1'], { cwd: dir, stdio: 'ignore' });
  plain = await new Origin(await freePort(), await freePort(), ['--max-streams-per-account', '1000']).open();
  secure = await new Origin(await freePort(), await freePort(), [
    '--max-streams-per-account',
    '1000',
    '--tls-cert',
    join(dir, 'cert.pem'),
    '--tls-key',
    join(dir, 'key.pem'),
  ]).open();
  browser = await chromium.launch({ executablePath, args: [...chromiumArgs, '--ignore-certificate-errors'] });
  site = await new FaultyProxy(() => plain.url).open();
});

afterAll(async () => {
  await browser?.close();
  site?.close();
  await plain?.close();
  await secure?.close();
  rmSync(dir, { recursive: true, force: true });
});

/** Opens that many streams of a job in one page, and tells how many of them have said something. */
async function open(base: string, id: string, n: number) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  await context.addCookies([{ name: 'session', value: token(), url: base }]);
  const page = await context.newPage();
  await page.goto(`${base}/healthz`);
  await page.evaluate(
    ([path, count]) => {
      const own = globalThis as unknown as { sources: EventSource[]; received: Set<number> };
      own.received = new Set();
      own.sources = Array.from({ length: count }, (_, i) => {
        const source = new EventSource(path);
        source.onmessage = () => own.received.add(i);
        return source;
      });
    },
    [`/api/jobs/${id}/progress`, n] as const,
  );
  return { page, received: () => page.evaluate(() => (globalThis as unknown as { received: Set<number> }).received.size) };
}

test('HTTP/1.1: six streams, and the seventh waits', async () => {
  const id = await plain.insert();
  const { page, received } = await open(plain.url, id, 7);
  await eventually('six', async () => (await received()) === 6);
  await page.evaluate(() => (globalThis as unknown as { sources: EventSource[] }).sources[0]!.close());
  await eventually('the seventh', async () => (await received()) === 7);
  await page.context().close();
});

test('HTTP/2: two hundred and fifty', async () => {
  const id = await secure.insert();
  const { page, received } = await open(`https://127.0.0.1:${secure.port}`, id, 250);
  await eventually('all', async () => (await received()) === 250);
  await page.evaluate(() => (globalThis as unknown as { received: Set<number> }).received.clear());
  await secure.progress(id, 5);
  await eventually('all of them told', async () => (await received()) === 250);
  expect(await secure.metric('jobprogress_streams_open')).toBe(250);
  await page.context().close();
});

test('a page that was asleep is right within a heartbeat of waking', async () => {
  const id = await plain.insert();
  const context = await browser.newContext();
  await context.addCookies([{ name: 'session', value: token(), url: site.url }]);
  const page = await context.newPage();
  await page.goto(site.url);
  await page.evaluate((path) => {
    const own = globalThis as unknown as { watchJob(url: string): unknown; job: unknown };
    own.job = own.watchJob(path);
  }, `/api/jobs/${id}/progress`);
  const state = () =>
    page.evaluate(() => {
      const { progress, connectionState } = (
        globalThis as unknown as { job: { getState(): { progress: { done: number } | null; connectionState: string } } }
      ).job.getState();
      return { done: progress?.done, connectionState };
    });
  await eventually('open', async () => (await state()).connectionState === 'open');

  const devtools = await context.newCDPSession(page);
  const asleep = async (frozen: boolean) => {
    await devtools.send('Page.setWebLifecycleState', { state: frozen ? 'frozen' : 'active' });
    await devtools.send('Network.emulateNetworkConditions', { offline: frozen, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  };
  for (let done = 1; done <= 3; done++) {
    await asleep(true);
    await new Promise((resolve) => setTimeout(resolve, 4 * heartbeat)); // the link dies, unseen
    if (done === 2) plain.signal('SIGSTOP');
    if (done === 3) await plain.stop();
    await plain.progress(id, done);
    if (done === 2) plain.signal('SIGCONT');
    if (done === 3) await plain.start();
    await asleep(false);
    const woken = Date.now();
    await eventually('right', async () => (await state()).done === done);
    console.log(`right ${Date.now() - woken} ms after waking, with a heartbeat each ${heartbeat} ms`);
    await eventually('open', async () => (await state()).connectionState === 'open');
  }
  await context.close();
});
