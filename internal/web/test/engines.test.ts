// What becomes of a page when something goes wrong between it and the server: in three engines, with a plain EventSource and
// with the hook's watch. The table in the hook's README is what is expected here.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { engines, type Page } from './engines.js';
import { ada, eventually, freePort, Origin, token } from './origin.js';
import { FaultyProxy, type Mode } from './proxy.js';
import { importScripts, scripts } from './scripts.js';

/** What a page shows of a job. */
interface Shown {
  done: number | null;
  status: string | null;
  connection: string;
}

type Way = 'EventSource' | 'hook';
const ways: Way[] = ['EventSource', 'hook'];

const watchBoth = `
  window.plain = { done: null, status: null };
  const source = new EventSource(args[0]);
  source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === 'progress') plain.done = event.done;
    if (event.type === 'status') plain.status = event.status;
    if (plain.status === 'completed') source.close();
  };
  window.source = source;
  const renew = () => { document.cookie = 'session=' + args[1] + '; path=/'; };
  window.job = watchJob(args[0], { onUnauthorized: () => window.mayRenew && renew() });
`;
const shown: Record<Way, string> = {
  EventSource: `return { ...plain, connection: ['connecting', 'open', 'closed'][source.readyState] }`,
  hook: `const { progress, status, connectionState } = job.getState(); return { done: progress?.done ?? null, status, connection: connectionState }`,
};

interface Fault {
  name: string;
  /** What goes wrong, once the page shows the job, and what mends it again. */
  begin: (lane: Lane) => Promise<void> | void;
  end?: (lane: Lane) => Promise<void> | void;
  /** From before the page is there. */
  early?: boolean;
}

const mode = (mode: Mode) => (lane: Lane) => void (lane.proxy.mode = mode);
const mended = mode('pass');
const faults: Fault[] = [
  { name: 'none', begin: () => {} },
  { name: 'the server is killed, and started 4 s later', begin: (lane) => void lane.origin.stop(), end: (lane) => lane.origin.start() },
  { name: 'a proxy answers 502 for 4 s', begin: (lane) => lane.cut('502'), end: mended },
  { name: 'a login page is answered for 4 s', begin: (lane) => lane.cut('login'), end: mended },
  { name: 'a proxy resets each connection after 1 s', begin: (lane) => lane.cut('reset') },
  { name: 'a proxy cuts what is silent for 1 s', begin: (lane) => lane.cut('idle') },
  { name: 'a proxy holds back the last chunk', begin: mode('hold'), early: true },
  { name: 'a proxy collects the whole answer', begin: mode('collect'), early: true },
  { name: 'the credentials run out, and are renewed', begin: (lane) => lane.expire(), end: (lane) => lane.page.run('window.mayRenew = true') },
  {
    name: 'the job is inserted 6 s after the page',
    begin: (lane) => lane.origin.sql('delete from job where id = $1', [lane.id]).then(() => {}),
    early: true,
    end: (lane) => lane.insert(),
  },
  {
    name: 'the page sleeps for 3 s',
    begin: (lane) => lane.page.run(`window.dispatchEvent(new Event('pagehide'))`),
    end: (lane) => lane.page.run(`window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))`),
  },
];

/** One engine, with a server and a proxy of its own. */
class Lane {
  id = '';
  constructor(
    readonly page: Page,
    readonly origin: Origin,
    readonly proxy: FaultyProxy,
  ) {}

  /** From now on the proxy is in this mode; what is open ends. */
  async cut(mode: Mode): Promise<void> {
    this.proxy.mode = mode;
    await this.origin.stop();
    await this.origin.start();
  }

  async expire(): Promise<void> {
    await this.page.run(`window.mayRenew = false; document.cookie = 'session=; path=/; max-age=0'`);
    await this.origin.stop();
    await this.origin.start();
  }

  async insert(): Promise<void> {
    await this.origin.sql(
      `insert into job (id, account_id, type, status, progress, started_at) values ($1, $2, 'matching', 'running', '{"total": 10}', now())`,
      [this.id, ada],
    );
  }

  see(way: Way): Promise<Shown> {
    return this.page.run<Shown>(shown[way]);
  }

  /** What a way came to: `right`, `right at the end`, or `gives up`; and what it said of itself meanwhile. */
  async live(fault: Fault): Promise<Record<Way, string>> {
    const { origin, proxy, page } = this;
    proxy.mode = 'pass';
    this.id = await origin.insert();
    if (fault.early) await fault.begin(this);
    await page.goto(`${proxy.url}/page/${this.id}`);
    await page.run(`document.cookie = 'session=' + args[0] + '; path=/'`, token());
    await eventually('the script', () => page.run<boolean>('return !!window.watchJob'));
    await page.run(watchBoth, `/api/jobs/${this.id}/progress`, token());
    /** Waits until the hook is so, and the EventSource, too: that may take a few seconds more, or it has given up. */
    const each = async (check: (one: Shown) => boolean) => {
      const reached = new Set<Way>();
      for (let end = Date.now() + 30_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
        for (const way of ways) {
          if (!reached.has(way) && check(await this.see(way))) {
            reached.add(way);
            if (way === 'hook') end = Math.min(end, Date.now() + 4000);
          }
        }
        if (reached.size === 2 || (reached.has('hook') && (await this.see('EventSource')).connection === 'closed')) break;
      }
      if (check(await this.see('EventSource'))) reached.add('EventSource'); // which the page closes when the job has ended
      return reached;
    };
    if (!fault.early) {
      await each(({ done }) => done === 0);
      await fault.begin(this);
    }
    await new Promise((resolve) => setTimeout(resolve, fault.name.includes('6 s') ? 6000 : 3500));
    const during = { EventSource: await this.see('EventSource'), hook: await this.see('hook') };
    if (!during.hook) throw new Error('the page is gone');
    await fault.end?.(this);
    await origin.progress(this.id, 3);
    const meanwhile = await each(({ done }) => done === 3);
    await origin.finish(this.id);
    const atEnd = await each(({ done, status }) => done === 3 && status === 'completed');
    const came = (way: Way) => (atEnd.has(way) ? (meanwhile.has(way) ? 'right' : 'right at the end') : 'gives up');
    await page.run('source.close(); job.close()');
    return { EventSource: came('EventSource'), hook: `${came('hook')}, ${during.hook.connection}` };
  }
}

/** The table in the README: fault → engine → way → what is expected. */
const table = new Map(
  readFileSync(new URL('../hook/README.md', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .filter((cells) => faults.some(({ name }) => name === cells[1]))
    .map((cells) => [cells[1]!, cells.slice(2, -1)]),
);

for (const [column, engine] of engines.entries()) {
  const missing = engine.missing();
  if (missing) {
    if (process.env.CI) test(engine.name, () => expect.fail(missing));
    else test.skip(missing, () => {});
    continue;
  }
  test.concurrent(engine.name, async ({ expect }) => {
    const origin = await new Origin(await freePort(), await freePort()).open();
    const proxy = await new FaultyProxy(() => origin.url).open();
    const page = await engine.open();
    try {
      const lane = new Lane(page, origin, proxy);
      const rows: string[][] = [];
      for (const fault of faults) {
        const came = await lane.live(fault);
        rows.push([fault.name, came.EventSource, came.hook]);
        console.log(`${engine.name}: ${fault.name}: EventSource ${came.EventSource} · hook ${came.hook}`);
      }
      await manyPages(lane);
      // How soon, and with what in the meantime, is the machine's matter; whether a page gives up is not.
      const verdicts = (cells: string[]) => cells.map((cell) => (cell.startsWith('right') ? 'right' : cell));
      expect(rows.map(verdicts)).toEqual(faults.map(({ name }) => verdicts([name, ...(table.get(name)?.slice(2 * column, 2 * column + 2) ?? [])])));
    } finally {
      await page.close();
      proxy.close();
      await origin.close();
    }
  }, 600_000);
}

// Plain EventSources of WebKit go on for more than 20 s, as if nothing had happened.
const webkit = engines.find(({ name }) => name === 'WebKit')!;
test.skipIf(webkit.missing() !== null)(
  'WebKit over HTTP/2: the hook sees that the server was killed',
  async () => {
    const dir = mkdtempSync(join(tmpdir(), 'jobprogress-tls-'));
    const goroot = execFileSync('go', ['env', 'GOROOT'], { encoding: 'utf8' }).trim();
    execFileSync('go', ['run', join(goroot, 'src/crypto/tls/generate_cert.go'), '--host', '127.0.0.1'], { cwd: dir, stdio: 'ignore' });
    const origin = await new Origin(await freePort(), await freePort(), [
      '--tls-cert',
      join(dir, 'cert.pem'),
      '--tls-key',
      join(dir, 'key.pem'),
    ]).open();
    const page = await webkit.open();
    try {
      const id = await origin.insert();
      await page.goto(`https://127.0.0.1:${origin.port}/healthz`);
      await page.run(
        `document.cookie = 'session=' + args[0] + '; path=/';
       const scripts = args[1];
       ${importScripts}
       window.job = watchJob(new URL('/api/jobs/' + args[2] + '/progress', location.href).href);`,
        token(),
        scripts(),
        id,
      );
      const state = () => page.run<{ connectionState: string; progress: { done: number } | null }>('return job.getState()');
      await eventually('open', async () => (await state()).connectionState === 'open');
      await origin.stop();
      await eventually('reconnecting', async () => (await state()).connectionState === 'reconnecting');
      await origin.progress(id, 4);
      await origin.start();
      await eventually('right', async () => (await state()).progress?.done === 4);
    } finally {
      await page.close();
      await origin.close();
      rmSync(dir, { recursive: true, force: true });
    }
  },
  120_000,
);

/** Chromium keeps the connections of pages that it may go back to: over HTTP/1.1 it opens six. */
async function manyPages({ page, proxy, origin }: Lane): Promise<void> {
  proxy.mode = 'pass';
  const id = await origin.insert();
  for (let i = 0; i < 10; i++) {
    await page.goto(`${proxy.url}/page/${i}`);
    await page.run(`document.cookie = 'session=' + args[0] + '; path=/'`, token());
    await eventually('the script', () => page.run<boolean>('return !!window.watchJob'));
    await page.run(`window.job = watchJob(args[0])`, `/api/jobs/${id}/progress`);
    await eventually('open', async () => (await page.run<string>('return job.getState().connectionState')) === 'open');
  }
  await eventually('one stream', async () => (await origin.metric('jobprogress_streams_open')) === 1);
}
