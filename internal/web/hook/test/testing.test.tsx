import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { renderHook } from 'vitest-browser-react';
import { useJobProgress } from '../src/index.js';
import { scriptedJob } from '../src/testing.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const wrapper = ({ children }: { children: ReactNode }) => <QueryClientProvider client={new QueryClient()}>{children}</QueryClientProvider>;

test('a scripted job goes its way in virtual time', async () => {
  const job = scriptedJob('x', { progress: { done: 0, total: 4, succeeded: 0, failed: 0 } });
  const told: string[] = [];
  const { result, act } = await renderHook(() => useJobProgress('x', { ...job.options, mirror: false, onComplete: () => told.push('complete') }), {
    wrapper,
  });
  const pass = (milliseconds: number) => act(() => vi.advanceTimersByTimeAsync(milliseconds));
  await pass(100);
  expect(result.current).toMatchObject({ connectionState: 'open', status: 'running', progress: { total: 4 } });
  job.play(
    [1000, (job) => job.progress({ done: 1 })],
    [1000, (job) => job.item({ itemId: 's1', itemKind: 'song', status: 'in_progress', label: 'Artist – Title' })],
    [1000, (job) => job.disconnect()],
    [10_000, (job) => job.connect()],
    [3000, (job) => job.progress({ done: 4 })],
    [1000, (job) => job.complete()],
  );
  await pass(1100);
  expect(result.current).toMatchObject({ progress: { done: 1 } });
  await pass(1000);
  expect(result.current.currentItem?.label).toBe('Artist – Title');
  await pass(5000);
  expect(result.current).toMatchObject({ connectionState: 'reconnecting', connectionError: { code: 'unreachable' }, status: 'running' });
  await pass(9500);
  expect(result.current).toMatchObject({ connectionState: 'open', progress: { done: 4 } });
  await pass(2000);
  expect(result.current).toMatchObject({ connectionState: 'closed', status: 'completed' });
  expect(told).toEqual(['complete']);
});
