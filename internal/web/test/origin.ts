// What the tests talk to: a real PostgreSQL, and the real server, which can be killed and started again.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const secret = 'a secret of at least thirty-two bytes';
export const ada = '00000000-0000-4000-8000-00000000000a';
export const ben = '00000000-0000-4000-8000-00000000000b';

/** Pings are this often in tests, in milliseconds. */
export const heartbeat = 500;

/** A free port. The system gives it to no outgoing connection, so it stays free between two origins. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_240 + Math.floor(Math.random() * 22_000);
    const server = createServer();
    try {
      await once(server.listen(port, '127.0.0.1'), 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      continue;
    }
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** An HS256 token of the account's, signed without the code under test. */
export function token(account = ada, key = secret, seconds = 3600): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: account, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${body}.${createHmac('sha256', key).update(body).digest('base64url')}`;
}

export class Origin {
  static readonly secret = secret;
  private readonly bin = mkdtempSync(join(tmpdir(), 'jobprogress-web-'));
  private testbed: ChildProcess | undefined;
  private server: ChildProcess | undefined;
  private pool: pg.Pool | undefined;
  program = join(this.bin, 'jobprogress');
  databaseURL = '';
  log = '';

  constructor(
    readonly port: number,
    readonly adminPort: number,
    private readonly args: string[] = [],
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async open(): Promise<this> {
    const built = spawnSync('go', ['build', '-o', this.bin, './cmd/jobprogress', './internal/web/testbed'], { cwd: root, encoding: 'utf8' });
    if (built.status !== 0) throw new Error(`go build: ${built.stderr}`);
    this.testbed = spawn(join(this.bin, 'testbed'), { stdio: ['pipe', 'pipe', 'inherit'] });
    for await (const line of createInterface({ input: this.testbed.stdout! })) {
      this.databaseURL = line;
      break;
    }
    if (!this.databaseURL) throw new Error('the testbed has no PostgreSQL');
    this.pool = new pg.Pool({ connectionString: this.databaseURL, max: 4 });
    this.pool.on('error', () => {}); // of an idle connection, when the database goes
    await this.start();
    return this;
  }

  /** As a replica of another, with the same database. */
  async beside(other: Origin): Promise<this> {
    rmSync(this.bin, { recursive: true, force: true });
    this.program = other.program;
    this.databaseURL = other.databaseURL;
    await this.start();
    return this;
  }

  /** Stops the database, or starts it again. */
  async database(command: 'stop' | 'start'): Promise<void> {
    const said = once(createInterface({ input: this.testbed!.stdout! }), 'line');
    this.testbed!.stdin!.write(`${command}\n`);
    await said;
  }

  async start(): Promise<void> {
    this.server = spawn(
      this.program,
      ['serve', '--addr', `127.0.0.1:${this.port}`, '--admin-addr', `127.0.0.1:${this.adminPort}`, '--ping-interval', `${heartbeat}ms`, ...this.args],
      { env: { ...process.env, DATABASE_URL: this.databaseURL, JOBPROGRESS_JWT_SECRET: secret }, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.server.stderr!.on('data', (text) => (this.log += text));
    await eventually('ready', async () => (await fetch(`http://127.0.0.1:${this.port}/readyz`).catch(() => null))?.ok === true || this.tls());
  }

  private tls(): boolean {
    return this.args.includes('--tls-cert') && this.log.includes('bus live');
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    const ended = once(this.server!, 'exit');
    this.server!.kill(signal);
    const [code] = await ended;
    return code as number | null;
  }

  signal(signal: NodeJS.Signals): void {
    this.server!.kill(signal);
  }

  async sql(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    return (await this.pool!.query(text, values)).rows;
  }

  /** A running job of the account's, with its id. */
  async insert(account = ada, total = 10): Promise<string> {
    const [row] = await this.sql(
      `insert into job (id, account_id, type, status, progress, started_at) values (gen_random_uuid(), $1, 'matching', 'running', jsonb_build_object('total', $2::int), now()) returning id`,
      [account, total],
    );
    return row!.id as string;
  }

  async progress(id: string, done: number): Promise<void> {
    await this.sql(`update job set progress = progress || jsonb_build_object('done', $2::int, 'succeeded', $2::int, 'failed', 0) where id = $1`, [
      id,
      done,
    ]);
  }

  async finish(id: string, status = 'completed', error: string | null = null): Promise<void> {
    await this.sql(`update job set status = $2::job_status, error = $3 where id = $1`, [id, status, error]);
  }

  async item(id: string, item: string, status: string, label: string | null = null): Promise<void> {
    await this.sql(`select jobprogress.item($1, $2, 'song', $3, label => $4)`, [id, item, status, label]);
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.adminPort}/metrics`)).text();
    const line = text.split('\n').find((l) => l.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1) ?? NaN);
  }

  async close(): Promise<void> {
    if (this.server?.exitCode === null && this.server.signalCode === null) await this.stop();
    await this.pool?.end();
    if (this.testbed) {
      const ended = once(this.testbed, 'exit');
      this.testbed.stdin!.end();
      await ended;
    }
    rmSync(this.bin, { recursive: true, force: true });
  }
}

/** Waits until the condition holds; the deadline is generous. */
export async function eventually(what: string, condition: () => boolean | Promise<boolean>, seconds = 30): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`not ${what} in time`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export const chromium = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** They keep the browser to this machine. */
export const chromiumArgs = [
  '--no-sandbox',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost',
];
