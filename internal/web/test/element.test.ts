// The custom element, in a page that an application without a framework has rendered.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { expect, test } from 'vitest';
import { token } from './origin.js';
import { useSite } from './site.js';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const its = useSite();
const poll = { timeout: 20_000 };

test('fifty bars, by one file and one stream', async () => {
  const ids: string[] = [];
  for (let i = 0; i < 50; i++) ids.push(await its.origin.insert());
  its.site.page = `<!doctype html><html lang=en><title>Jobs</title><script type=module src=/hook/job-progress.js></script>
    <style>job-progress[status=failed]::part(text) { color: rgb(200, 0, 0) } #j0 { --job-progress-color: rgb(1, 2, 3) }</style>
    <main><h1>Jobs</h1>${ids.map((id, i) => `<job-progress id=j${i} job="${id}" label="Job ${i}">…</job-progress>`).join('\n')}</main>`;
  const context = await its.browser.newContext();
  await context.addCookies([{ name: 'session', value: token(), url: its.site.url }]);
  const page = await context.newPage();
  const errors: unknown[] = [];
  page.on('pageerror', (error) => errors.push(error));
  await page.goto(`${its.site.url}/jobs`);
  await expect.poll(() => page.locator('job-progress[status=running][connection=open]').count(), poll).toBe(50);
  expect(await its.origin.metric('jobprogress_streams_open')).toBe(1);

  const bar = page.getByRole('progressbar', { name: 'Job 0', exact: true });
  await its.origin.sql(
    `update job set progress = '{"total": 10, "done": 4, "succeeded": 3, "failed": 1, "message": "Fetching <b>page 3"}' where id = $1`,
    [ids[0]],
  );
  await expect.poll(() => bar.getAttribute('aria-valuenow'), poll).toBe('4');
  expect(await bar.getAttribute('aria-valuemax')).toBe('10');
  expect(await bar.getAttribute('aria-valuetext')).toBe('running · 4 of 10 · 1 failed · Fetching <b>page 3');
  const width = (part: string) => page.locator(`#j0 [part=${part}]`).evaluate((element) => (element as HTMLElement).style.width);
  expect([await width('done'), await width('failed')]).toEqual(['30%', '10%']);
  expect(await page.locator('#j0 [part=done]').evaluate((element) => getComputedStyle(element).backgroundColor)).toBe('rgb(1, 2, 3)');
  await page.evaluate(axe);
  expect(await page.evaluate(`axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))`)).toEqual([]);

  await its.origin.finish(ids[1]!, 'failed', 'two songs were lost');
  const failed = page.locator('#j1');
  await expect.poll(() => failed.getAttribute('status'), poll).toBe('failed');
  expect(await failed.getByRole('status').textContent()).toBe('Job 1: failed · 0 of 10. two songs were lost');
  expect(await failed.locator('[part=error]').textContent()).toBe('two songs were lost');
  expect(await failed.locator('[part=text]').evaluate((element) => getComputedStyle(element).color)).toBe('rgb(200, 0, 0)');

  // Another job, in other words; one that moves; and one that goes.
  const other = await its.origin.insert();
  await page.evaluate((id) => {
    const own = window as unknown as { changes: string[] };
    own.changes = [];
    const element = document.querySelector('#j2')! as HTMLElement & { text(state: { status: string | null }): string };
    document.addEventListener(
      'change',
      (event) => event.target === element && own.changes.push((event as CustomEvent<{ status: string }>).detail.status),
    );
    element.text = ({ status }) => `Stand: ${status}`;
    element.setAttribute('job', id);
    document.querySelector('main')!.prepend(element);
    document.querySelector('#j3')!.remove();
  }, other);
  await expect.poll(() => page.locator('#j2 [part=text]').textContent(), poll).toBe('Stand: running');
  await its.origin.progress(ids[5]!, 5); // which is no change of this one
  await its.origin.finish(other);
  await expect.poll(() => page.evaluate('changes.at(-1)'), poll).toBe('completed');
  expect(await page.evaluate('changes.filter(Boolean)')).toEqual(['running', 'completed']);
  await expect.poll(() => page.getByRole('status').getByText('Job 2: Stand: completed').count(), poll).toBe(1);
  expect(await its.origin.metric('jobprogress_streams_open')).toBe(1);
  await page.locator('main').evaluate((main) => main.replaceChildren());
  await expect.poll(() => its.origin.metric('jobprogress_streams_open'), poll).toBe(0);
  expect(errors).toEqual([]);
  await context.close();
});
