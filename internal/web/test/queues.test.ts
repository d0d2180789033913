// Queues of npm, each with its own migrations and its own client, and viewers of its jobs.

import { spawnSync } from 'node:child_process';
import { makeWorkerUtils, run, type Runner, type WorkerUtils } from 'graphile-worker';
import pg from 'pg';
import PgBoss from 'pg-boss';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ada, eventually, freePort, Origin, token } from './origin.js';

const origin = new Origin(await freePort(), await freePort(), ['--drain-timeout', '500ms']);
beforeAll(async () => void (await origin.open()));
afterAll(() => origin.close());

/** A viewer that comes back as EventSource does. */
class Viewer {
  text = '';
  answers: number[] = [];
  private lastEventID = '';

  constructor(private readonly id: string) {
    void this.follow();
  }

  private async follow(): Promise<void> {
    for (;;) {
      try {
        const response = await fetch(`${origin.url}/api/jobs/${this.id}/progress`, {
          headers: {
            authorization: `Bearer ${token()}`,
            accept: 'text/event-stream',
            ...(this.lastEventID && { 'last-event-id': this.lastEventID }),
          },
        });
        this.answers.push(response.status);
        if (response.status !== 200) return;
        for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
          this.text += chunk; // whole lines
          this.lastEventID = [...chunk.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? this.lastEventID;
        }
      } catch {} // the server is away
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Waits for what is sent after all that was waited for before. */
  async sees(text: string): Promise<void> {
    let at = -1;
    await eventually(`told ${text}: ${this.text}`, () => (at = this.text.indexOf(text)) >= 0);
    this.text = this.text.slice(at + text.length);
  }

  async ends(): Promise<void> {
    await eventually('at the end', () => this.answers.at(-1) !== 200);
    expect(this.answers.at(-1)).toBe(204);
    expect(this.text).not.toContain('no longer exists');
  }
}

/** A job as a test steers it: what it is to do next. */
class Steps {
  private next: ((step: string) => void) | undefined;
  private waiting: string[] = [];

  tell(step: 'progress' | 'succeed' | 'fail'): void {
    this.next ? this.next(step) : this.waiting.push(step);
    this.next = undefined;
  }

  async work(progress: () => Promise<unknown>): Promise<void> {
    for (;;) {
      const step = this.waiting.shift() ?? (await new Promise<string>((resolve) => (this.next = resolve)));
      if (step === 'succeed') return;
      if (step === 'fail') throw new Error('odd');
      await progress();
    }
  }
}

function install(...args: string[]): string {
  const { status, stderr } = spawnSync(origin.program, ['install', '--move', ...args], {
    encoding: 'utf8',
    env: { ...process.env, DATABASE_URL: origin.databaseURL },
  });
  return status === 0 ? '' : stderr;
}

async function restart(): Promise<void> {
  await origin.stop('SIGINT');
  await origin.start();
}

const data = { account_id: ada };

describe('graphile-worker', () => {
  const steps = new Steps();
  let utils: WorkerUtils;
  let pool: pg.Pool;
  const start = (): Promise<Runner> =>
    run({
      pgPool: pool,
      pollInterval: 100,
      noHandleSignals: true,
      taskList: {
        sync: (_, { job }) =>
          steps.work(() =>
            pool.query(`update graphile_worker._private_jobs set payload = payload::jsonb || $2 where id = $1`, [
              job.id,
              { progress: { total: 10, done: 4 } },
            ]),
          ),
      },
    });

  beforeAll(async () => {
    pool = new pg.Pool({ connectionString: origin.databaseURL });
    utils = await makeWorkerUtils({ pgPool: pool });
    await utils.migrate();
    expect(install('--preset', 'graphile-worker')).toBe('');
    await restart();
  });
  afterAll(async () => {
    await utils.release();
    await pool.end();
  });

  test('a job that succeeds is deleted, and completed', async () => {
    const { id } = await utils.addJob('sync', data);
    const viewer = new Viewer(id);
    await viewer.sees('"status":"pending"');
    const runner = await start();
    await viewer.sees('"status":"running"');
    steps.tell('progress');
    await viewer.sees('"done":4,"total":10');
    await restart();
    await viewer.sees('"status":"running"');
    await origin.sql(`select jobprogress.item($1, 's1', 'song', 'in_progress')`, [id]);
    await viewer.sees('"itemId":"s1"');
    steps.tell('succeed');
    await viewer.sees('"status":"completed"');
    await viewer.ends();
    await runner.stop();
  });

  test('a job that succeeds while its viewers are away is completed', async () => {
    const { id } = await utils.addJob('sync', data);
    const runner = await start();
    const viewer = new Viewer(id);
    await viewer.sees('"status":"running"');
    await origin.stop('SIGINT');
    steps.tell('succeed');
    await eventually('deleted', async () => (await origin.sql('select from graphile_worker._private_jobs')).length === 0);
    await origin.start();
    await viewer.sees('"status":"completed"');
    await viewer.ends();
    await runner.stop();
  });

  test('a job that is tried again, and one that fails for good', async () => {
    const { id } = await utils.addJob('sync', data, { maxAttempts: 2 });
    const viewer = new Viewer(id);
    await viewer.sees('"status":"pending"');
    const runner = await start();
    await viewer.sees('"status":"running"');
    steps.tell('fail');
    await viewer.sees('"status":"pending"');
    await viewer.sees('"status":"running"'); // after exp(1) seconds
    steps.tell('fail');
    await viewer.sees('{"type":"error","message":"odd"}');
    await viewer.sees('"status":"failed"');
    await viewer.ends();
    await runner.stop();
  });

  test('a job that is removed', async () => {
    const { id } = await utils.addJob('sync', data);
    const viewer = new Viewer(id);
    await viewer.sees('"status":"pending"');
    await utils.completeJobs([id]);
    await viewer.sees('"status":"completed"');
    await viewer.ends();
  });
});

describe('pg-boss', () => {
  const steps = new Steps();
  const boss = { now: null as unknown as PgBoss };
  const work = () =>
    boss.now.work('sync', { pollingIntervalSeconds: 0.5 }, ([job]) =>
      steps.work(() => origin.sql(`update pgboss.job set data = data || $2 where id = $1`, [job!.id, { progress: { total: 10, done: 4 } }])),
    );
  const send = async (retryLimit: number): Promise<string> => (await boss.now.send('sync', data, { retryLimit, retryDelay: 1 }))!;

  beforeAll(async () => {
    boss.now = new PgBoss({ connectionString: origin.databaseURL });
    boss.now.on('error', () => {});
    await boss.now.start();
    await boss.now.createQueue('sync');
    expect(install('--preset', 'pg-boss')).toContain('create index on pgboss.job (id)');
    await origin.sql('create index on pgboss.job (id)');
    expect(install('--preset', 'pg-boss')).toBe('');
    await restart();
  });
  afterAll(() => boss.now.stop({ graceful: false }));

  test('a job that succeeds', async () => {
    const id = await send(0);
    const viewer = new Viewer(id);
    await viewer.sees('"status":"pending"');
    await work();
    await viewer.sees('"status":"running"');
    steps.tell('progress');
    await viewer.sees('"done":4,"total":10');
    await restart();
    await viewer.sees('"status":"running"');
    steps.tell('succeed');
    await viewer.sees('"status":"completed"');
    await viewer.ends();
  });

  test('a job that is tried again and succeeds', async () => {
    const viewer = new Viewer(await send(1));
    await viewer.sees('"status":"running"');
    steps.tell('fail');
    await viewer.sees('"status":"pending"');
    await viewer.sees('"status":"running"');
    steps.tell('succeed');
    await viewer.sees('"status":"completed"');
    await viewer.ends();
  });

  test('a job that fails for good, in a queue that was made later', async () => {
    await boss.now.createQueue('later');
    await boss.now.work('later', { pollingIntervalSeconds: 0.5 }, async () => steps.work(async () => {}));
    const viewer = new Viewer((await boss.now.send('later', data, { retryLimit: 0 }))!);
    await viewer.sees('"status":"running"');
    steps.tell('fail');
    await viewer.sees('{"type":"error","message":"odd"}');
    await viewer.sees('"status":"failed"');
    await viewer.ends();
  });

  test('a job that is cancelled', async () => {
    await boss.now.offWork('sync');
    const id = await send(0);
    const viewer = new Viewer(id);
    await viewer.sees('"status":"pending"');
    await boss.now.cancel('sync', id);
    await viewer.sees('{"type":"error","message":"cancelled"}');
    await viewer.sees('"status":"failed"');
    await viewer.ends();
  });
});
