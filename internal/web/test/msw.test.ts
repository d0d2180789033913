import { http } from 'msw';
import { setupServer } from 'msw/node';
import { expect, test } from 'vitest';
import { jobHandlers, scriptedJob } from '../hook/src/testing.js';

test('Mock Service Worker answers for a scripted job', async () => {
  const job = scriptedJob('x', { progress: { done: 1, total: 2, succeeded: 1, failed: 0 } });
  const server = setupServer(...jobHandlers(http));
  server.listen();
  try {
    expect(await (await fetch('http://app.example/api/jobs/x')).json()).toMatchObject({ id: 'x', status: 'running', progress: { done: 1 } });
    expect((await fetch('http://app.example/api/jobs/y')).status).toBe(404);
    job.disconnect();
    await expect(fetch('http://app.example/api/jobs/x')).rejects.toThrow();
    await expect(fetch('http://app.example/api/jobs/x/progress')).rejects.toThrow();
    job.connect();
    const stream = await fetch('http://app.example/api/jobs/x/progress');
    expect(stream.headers.get('Content-Type')).toBe('text/event-stream');
    job.progress({ done: 2 });
    job.complete();
    const data = (await stream.text()).split('\n').filter((line) => line.startsWith('data: {"type"'));
    expect(data.map((line) => JSON.parse(line.slice(6)))).toEqual([
      { type: 'progress', done: 1, total: 2, succeeded: 1, failed: 0 },
      { type: 'status', status: 'running' },
      { type: 'progress', done: 2, total: 2, succeeded: 1, failed: 0 },
      { type: 'status', status: 'completed' },
    ]);
    expect(await (await fetch('http://app.example/api/jobs/progress?id=x&id=y', { headers: { Accept: 'application/json' } })).json()).toEqual([
      job.state,
    ]);
    const many = await (await fetch('http://app.example/api/jobs/progress?id=x')).text();
    expect(many).toContain('data: {"type":"job","jobId":"x","job":{"id":"x"');
  } finally {
    server.close();
  }
});
