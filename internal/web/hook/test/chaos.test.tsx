// Rows come and go at random, while their jobs change and the server, the page and the credentials fail. At rest each row
// shows what the database has. VITE_SEED=7 repeats a run, VITE_CHAOS=60 makes it last that many seconds.

import { QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { expect, test } from 'vitest';
import { commands } from 'vitest/browser';
import { render } from 'vitest-browser-react';
import { isTerminal, useJobProgress, useJobs, type JobState, type Jobs } from '../src/index.js';
import { ada, ben, client, Counted, eventually } from './harness.js';

const seconds = Number(import.meta.env.VITE_CHAOS ?? 8);
const seed = Number(import.meta.env.VITE_SEED ?? Date.now() % 1_000_000);

/** Numbers between 0 and 1 that a seed repeats. */
function numbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x ^= x + Math.imul(x ^ (x >>> 7), 61 | x);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const rows = new Map<string, JobState>();
let list: Jobs;

const onUnauthorized = async () => void (document.cookie = `session=${await commands.token()}; path=/`);

function Row({ id }: { id: string }) {
  const state = useJobProgress(id, { EventSource: Counted, onUnauthorized });
  rows.set(id, state);
  return <p>{state.status}</p>;
}

function List() {
  list = useJobs(undefined, { EventSource: Counted, onUnauthorized });
  return null;
}

test(
  `whatever happens, at rest the page is right (seed ${seed})`,
  async () => {
    console.log(`VITE_SEED=${seed} repeats this`);
    await commands.sql('delete from job');
    const inserted = await commands.sql(
      `insert into job (id, account_id, type, status, progress)
     select gen_random_uuid(), $1, 'matching', 'running', '{"total": 1000}' from generate_series(1, 220) returning id`,
      [ada],
    );
    const ids = inserted.map(({ id }) => id as string);
    const errors: unknown[] = [];
    const collect = (event: ErrorEvent) => errors.push(event.message);
    window.addEventListener('error', collect);
    let mounted = new Set<string>();
    const page = () => (
      <StrictMode>
        <QueryClientProvider client={client}>
          <List />
          {[...mounted].map((id) => (
            <Row key={id} id={id} />
          ))}
        </QueryClientProvider>
      </StrictMode>
    );
    const screen = await render(page());
    const end = Date.now() + seconds * 1000;
    const chance = (salt: number) => {
      const random = numbers(seed + salt);
      return { random, some: (count: number) => Array.from({ length: count }, () => ids[Math.floor(random() * ids.length)]!) };
    };
    const until = async (step: () => Promise<void>, pause: number, random: () => number) => {
      while (Date.now() < end) {
        await step();
        await sleep(random() * pause);
      }
    };

    const database = async () => {
      const { random, some } = chance(1);
      const changes: [text: string, jobs: number, account?: string][] = [
        [`update job set progress = jsonb_build_object('total', 1000, 'done', (random() * 1000)::int) where id = any($1)`, 20],
        [`update job set status = 'completed' where id = any($1)`, 8],
        [`update job set status = 'failed', error = 'odd' where id = any($1)`, 4],
        [`update job set status = 'running', error = null where id = any($1)`, 12],
        ['delete from job where id = any($1)', 1],
        ['update job set account_id = $2 where id = any($1)', 4, ben],
        ['update job set account_id = $2 where id = any($1)', 20, ada],
      ];
      await until(
        async () => {
          const [text, jobs, account] = changes[Math.floor(random() * changes.length)]!;
          await commands.sql(text, [some(jobs), ...(account ? [account] : [])]);
        },
        60,
        random,
      );
    };
    const visitor = async () => {
      const { random, some } = chance(2);
      await until(
        async () => {
          if (random() < 0.1) mounted = new Set();
          else for (const id of some(random() < 0.2 ? 200 : 20)) if (!mounted.delete(id) || random() < 0.3) mounted.add(id);
          await screen.rerender(page());
        },
        150,
        random,
      );
    };
    const faults = async () => {
      const { random } = chance(3);
      const happen = [
        async () => {
          await commands.stopOrigin();
          await sleep(random() * 2000);
          await commands.startOrigin();
        },
        async () => {
          await commands.signalOrigin('SIGSTOP');
          await sleep(random() * 2000);
          await commands.signalOrigin('SIGCONT');
        },
        async () => void window.dispatchEvent(new Event(['pagehide', 'pageshow', 'online', 'focus'][Math.floor(random() * 4)]!)),
        async () => void (document.cookie = `session=${random() < 0.5 ? 'none' : await commands.token(ada, 1)}; path=/`),
      ];
      await until(() => happen[Math.floor(random() * happen.length)]!(), 500, random);
    };
    await Promise.all([database(), visitor(), faults()]);

    window.dispatchEvent(new Event('pageshow'));
    for (const id of ids) mounted.add(id);
    await screen.rerender(page());
    await eventually(async () => {
      const truth = new Map(
        (await commands.sql('select id, account_id, status, progress, error from job')).map((row) => [
          row.id as string,
          row as { account_id: string; status: string; progress: { done?: number }; error: string | null },
        ]),
      );
      const shows = (state: JobState | undefined) => state && [state.status, state.progress?.done ?? 0, state.error];
      const wrong = ids.filter((id) => {
        const [row, state] = [truth.get(id), rows.get(id)!];
        // What has ended, or was deleted, stays as it was last seen; and nothing else is said of what is not ours.
        if (row?.account_id !== ada)
          return state.connectionState !== 'closed' || !(isTerminal(state.status) || state.connectionError?.code === 'job_not_found');
        return JSON.stringify(shows(state)) !== JSON.stringify([row.status, row.progress.done ?? 0, row.error]);
      });
      expect(wrong.map((id) => [id, shows(rows.get(id)), rows.get(id)!.connectionState, truth.get(id)])).toEqual([]);
      for (const [id, state] of list.jobs) expect([truth.get(id)?.account_id, state.status]).toEqual([ada, truth.get(id)?.status]);
      expect(list.jobs.size).toBe(Math.min(100, [...truth.values()].filter(({ account_id }) => account_id === ada).length));
    });
    expect(await commands.metric('jobprogress_streams_open')).toBe(4); // of 220 rows, and the list
    await screen.unmount();
    await eventually(async () => expect(await commands.metric('jobprogress_streams_open')).toBe(0));
    expect(Counted.open).toBe(0);
    expect(errors).toEqual([]);
    window.removeEventListener('error', collect);
  },
  120_000 + seconds * 1000,
);
