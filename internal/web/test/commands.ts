// What a test in the browser can have done outside of it.

import type { BrowserCommand } from 'vitest/node';
import { token, type Origin } from './origin.js';

const origin = () => (globalThis as unknown as { origin: Origin }).origin;

const command =
  <Args extends unknown[], Result>(do_: (...args: Args) => Promise<Result>): BrowserCommand<Args> =>
  (_, ...args) =>
    do_(...args);

export const commands = {
  insert: command((account?: string, total?: number) => origin().insert(account, total)),
  progress: command((id: string, done: number) => origin().progress(id, done)),
  finish: command((id: string, status?: string, error?: string | null) => origin().finish(id, status, error)),
  item: command((id: string, item: string, status: string, label?: string) => origin().item(id, item, status, label)),
  sql: command((text: string, values?: unknown[]) => origin().sql(text, values)),
  token: command(async (account?: string, seconds?: number) => token(account ?? undefined, undefined, seconds ?? undefined)),
  stopOrigin: command(() => origin().stop()),
  startOrigin: command(() => origin().start()),
  signalOrigin: command(async (signal: string) => origin().signal(signal as NodeJS.Signals)),
  metric: command((name: string) => origin().metric(name)),
};

declare module 'vitest/browser' {
  interface BrowserCommands {
    insert(account?: string, total?: number): Promise<string>;
    progress(id: string, done: number): Promise<void>;
    finish(id: string, status?: string, error?: string | null): Promise<void>;
    item(id: string, item: string, status: string, label?: string): Promise<void>;
    sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
    token(account?: string, seconds?: number): Promise<string>;
    stopOrigin(): Promise<void>;
    startOrigin(): Promise<void>;
    signalOrigin(signal: string): Promise<void>;
    metric(name: string): Promise<number>;
  }
}
