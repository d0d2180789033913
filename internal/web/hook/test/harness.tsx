// What the tests of the hook share: an account that is signed in, a query client of each test's own, and streams that are
// counted.

import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import { commands } from 'vitest/browser';
import { renderHook } from 'vitest-browser-react';
import { useJobProgress, type JobState, type UseJobProgressOptions } from '../src/index.js';

export const ada = '00000000-0000-4000-8000-00000000000a';
export const ben = '00000000-0000-4000-8000-00000000000b';

/** An EventSource that is counted. */
export class Counted extends EventSource {
  static opened: Counted[] = [];
  static get open() {
    return Counted.opened.filter((source) => source.readyState !== EventSource.CLOSED).length;
  }
  constructor(url: string, init?: EventSourceInit) {
    super(url, init);
    Counted.opened.push(this);
  }
}

export let client: QueryClient;
const errors = vi.spyOn(console, 'error');

beforeEach(async () => {
  document.cookie = `session=${await commands.token()}; path=/`;
  client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  Counted.opened = [];
  errors.mockClear();
});

afterEach(() => {
  client.clear();
  expect(errors).not.toHaveBeenCalled();
});

export const wrapper = ({ children }: { children: ReactNode }) => <QueryClientProvider client={client}>{children}</QueryClientProvider>;

export function watch(id: string | null | undefined, options: UseJobProgressOptions = {}) {
  return renderHook((props?: { id: string | null | undefined }) => useJobProgress(props ? props.id : id, { EventSource: Counted, ...options }), {
    wrapper,
  });
}

// Generous: only a hang is to meet it.
export const eventually = (check: () => void | Promise<void>) => vi.waitFor(check, { timeout: 20_000, interval: 10 });
export const becomes = (state: () => JobState, expected: object) => eventually(() => expect(state()).toMatchObject(expected));
