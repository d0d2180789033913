// The proxies that people put before the service, with the configurations that we ship.

import { spawn, type ChildProcess } from 'node:child_process';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type Page } from 'playwright';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { chromium as executablePath, chromiumArgs, eventually, freePort, Origin, token } from './origin.js';
import { importScripts, scripts } from './scripts.js';

const dir = mkdtempSync(join(tmpdir(), 'jobprogress-proxies-'));
let origin: Origin;
const started: ChildProcess[] = [];

beforeAll(async () => {
  origin = await new Origin(await freePort(), await freePort()).open();
});
afterAll(async () => {
  for (const one of started) one.kill('SIGKILL');
  await origin?.close();
  rmSync(dir, { recursive: true, force: true });
});

const proxies = [
  {
    name: 'nginx',
    program: '/usr/sbin/nginx',
    file: 'nginx.conf',
    args: (file: string) => ['-p', dir, '-e', 'stderr', '-g', 'daemon off; pid nginx.pid;', '-c', file],
  },
  { name: 'Caddy', program: '/usr/bin/caddy', file: 'Caddyfile', args: (file: string) => ['run', '--adapter', 'caddyfile', '--config', file] },
  { name: 'HAProxy', program: '/usr/sbin/haproxy', file: 'haproxy.cfg', args: (file: string) => ['-db', '-f', file] },
];

/** Starts the proxy with our configuration, changed as a person would, and waits until it listens. */
async function start({ program, file, args }: (typeof proxies)[number], change: (text: string) => string): Promise<void> {
  const path = join(dir, file);
  writeFileSync(path, change(readFileSync(join('proxies', file), 'utf8')));
  writeFileSync(join(dir, 'come-back.http'), readFileSync('proxies/come-back.http'));
  const one = spawn(program, args(path), { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HOME: dir } });
  let log = '';
  one.stderr!.on('data', (text) => (log += text));
  one.on('exit', (code) => code && console.error(`${program} ends with ${code}: ${log}`));
  started.push(one);
}

for (const proxy of proxies) {
  if (!existsSync(proxy.program)) {
    const missing = `${proxy.name} is not tried: no ${proxy.program} (Debian: apt-get install ${proxy.name.toLowerCase()})`;
    if (process.env.CI) test(proxy.name, () => expect.fail(missing));
    else test.skip(missing, () => {});
    continue;
  }
  test(`${proxy.name} passes each event on at once, and has EventSource come back`, async () => {
    const port = await freePort();
    await start(proxy, (text) =>
      text
        .replaceAll(':8000', `:${port}`)
        .replaceAll(':8080', `:${origin.port}`)
        .replace(/\n.*:8082.*/g, ''),
    );
    const url = `http://127.0.0.1:${port}`;
    const headers = { Authorization: `Bearer ${token()}`, Accept: 'text/event-stream' };
    const id = await origin.insert();
    await eventually('there', async () => (await fetch(`${url}/api/jobs/${id}`, { headers }).catch(() => null))?.status === 200);
    const list = await fetch(`${url}/api/jobs`, { headers });
    expect(await list.json()).toEqual(expect.arrayContaining([expect.objectContaining({ id })]));

    const stream = await fetch(`${url}/api/jobs/${id}/progress`, { headers });
    const body = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
    let said = '';
    const receives = async (text: string) => {
      while (!said.includes(text)) {
        const { value, done } = await body.read();
        if (done) throw new Error(`the stream ended: ${said}`);
        said += value;
      }
    };
    await receives('running');
    for (let done = 1; done <= 3; done++) {
      await origin.progress(id, done);
      await receives(`"done":${done},`); // before the next one is written
    }
    await receives(': ping');

    await origin.stop();
    await body.read().catch(() => {});
    await eventually('told to come back', async () => {
      const answer = await fetch(`${url}/api/jobs/${id}/progress`, { headers }).catch(() => null);
      return (
        answer?.status === 200 &&
        answer.headers.get('Content-Type') === 'text/event-stream' &&
        (await answer.text()) === 'retry: 3000\n: upstream_unavailable\n\n'
      );
    });
    expect([502, 503]).toContain((await fetch(`${url}/api/jobs/${id}`, { headers })).status);
    await origin.start();
    await eventually('back', async () => (await fetch(`${url}/api/jobs/${id}`, { headers })).status === 200);
    await eventually('what is ours comes through', async () => (await fetch(`${url}/api/jobs/${id}/progress`)).status === 401);
  });
}

describe.runIf(existsSync('/usr/sbin/haproxy'))('three replicas behind HAProxy that checks /readyz', () => {
  // Viewers. Chromium has 256 streams on a connection, and contexts have connections of their own.
  const visitors = [
    { plain: 100, hooks: 100 },
    { plain: 0, hooks: 150 },
    { plain: 0, hooks: 150 },
  ];

  test('PostgreSQL away for 15 s, then a rolling restart: none dies, none misses the end', async () => {
    const goroot = execFileSync('go', ['env', 'GOROOT'], { encoding: 'utf8' }).trim();
    execFileSync('go', ['run', join(goroot, 'src/crypto/tls/generate_cert.go'), '--host', '127.0.0.1'], { cwd: dir, stdio: 'ignore' });
    writeFileSync(join(dir, 'both.pem'), readFileSync(join(dir, 'cert.pem'), 'utf8') + readFileSync(join(dir, 'key.pem'), 'utf8'));
    const args = ['--max-streams-per-account', '1000', '--lame-duck', '2s', '--drain-timeout', '2s'];
    const one = await new Origin(await freePort(), await freePort(), args).open();
    const two = await new Origin(await freePort(), await freePort(), args).beside(one);
    const three = await new Origin(await freePort(), await freePort(), args).beside(one);
    const port = await freePort();
    const browser = await chromium.launch({ executablePath, args: [...chromiumArgs, '--ignore-certificate-errors'] });
    try {
      await start(proxies[2]!, (text) =>
        text
          .replace('127.0.0.1:8000', `127.0.0.1:${port} ssl crt both.pem alpn h2,http/1.1`)
          .replaceAll(':8080', `:${one.port}`)
          .replaceAll('server two 127.0.0.1:8082', `server two 127.0.0.1:${two.port}\n  server three 127.0.0.1:${three.port}`)
          .replace(
            'default_backend others',
            'acl page path_beg /hook /page\n  http-request return status 200 content-type text/html string "<title>page</title>" if page\n  default_backend others',
          )
          .replace('defaults', 'global\n  tune.h2.max-concurrent-streams 300\n\ndefaults'),
      );
      const url = `https://127.0.0.1:${port}`;
      const id = await one.insert();
      const visit = async ({ plain, hooks }: (typeof visitors)[number]): Promise<Page> => {
        const context = await browser.newContext({ ignoreHTTPSErrors: true });
        await context.addCookies([{ name: 'session', value: token(), url }]);
        const page = await context.newPage();
        await eventually('there', () =>
          page.goto(`${url}/page`).then(
            (answer) => answer?.ok() === true,
            () => false,
          ),
        );
        // HAProxy serves no files.
        await page.evaluate(`(async () => {
        const scripts = ${JSON.stringify(scripts())};
        ${importScripts}
        const path = '/api/jobs/${id}/progress';
        window.plain = Array.from({ length: ${plain} }, () => {
          const shown = { source: new EventSource(path) };
          shown.source.onmessage = ({ data }) => {
            const event = JSON.parse(data);
            if (event.type === 'progress') shown.done = event.done;
            if (event.type === 'status') shown.status = event.status;
          };
          return shown;
        });
        // Each by a stream of its own.
        window.hooks = Array.from({ length: ${hooks} }, (_, i) => watchJob(path, { EventSource: class extends EventSource { static key = String(i) } }));
      })()`);
        return page;
      };
      const pages = await Promise.all(visitors.map(visit));
      const everywhere = <T>(expression: string): Promise<T[]> => Promise.all(pages.map((page) => page.evaluate<T>(expression)));
      const right = (done: number, status: string) =>
        eventually(`${status} at ${done}`, async () => {
          const counts = await everywhere<{ dead: number; wrong: number }>(`({
            dead: plain.filter(({ source, status }) => source.readyState === EventSource.CLOSED && status !== 'completed').length,
            wrong: [...plain, ...hooks.map((job) => job.getState()).map(({ progress, status }) => ({ done: progress?.done, status }))]
              .filter(({ done, status }) => done !== ${done} || status !== '${status}').length,
          })`);
          const dead = counts.reduce((sum, { dead }) => sum + dead, 0);
          if (dead > 0) throw new Error(`${dead} plain EventSources have given up`);
          return counts.every(({ wrong }) => wrong === 0);
        });
      await right(0, 'running');

      await one.database('stop');
      await new Promise((resolve) => setTimeout(resolve, 15_000));
      await one.database('start');
      await eventually('the database', () =>
        one.progress(id, 1).then(
          () => true,
          () => false,
        ),
      );
      let since = Date.now();
      await right(1, 'running');
      console.log(`PostgreSQL away for 15 s: all right ${Date.now() - since} ms after the first commit`);

      for (const [i, replica] of [one, two].entries()) {
        expect(await replica.stop('SIGTERM')).toBe(0);
        await one.progress(id, 2 + i);
        since = Date.now();
        await right(2 + i, 'running');
        console.log(`replica ${i + 1} stopped: all right ${Date.now() - since} ms after the next commit`);
        await replica.start();
        await new Promise((resolve) => setTimeout(resolve, 2000)); // HAProxy finds it
      }
      // The job ends while the last replica does.
      const stopped = three.stop('SIGTERM');
      await new Promise((resolve) => setTimeout(resolve, 2500)); // in the middle of its drain
      await one.finish(id);
      since = Date.now();
      await right(3, 'completed');
      expect(await stopped).toBe(0);
      console.log(`replica 3 stopped: all show the end ${Date.now() - since} ms after its commit`);
      await eventually('the plain ones have ended', async () =>
        (await everywhere<boolean>('plain.every(({ source }) => source.readyState === EventSource.CLOSED)')).every(Boolean),
      );
    } finally {
      await browser.close();
      await three.close();
      await two.close();
      await one.close();
    }
  }, 180_000);
});
