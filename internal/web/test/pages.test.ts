// The demo's page and the example application as people with other eyes, hands and screens meet them.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser } from 'playwright';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { chromium as executablePath, chromiumArgs } from './origin.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let demo: ChildProcess;
let browser: Browser;
let url = '';

beforeAll(async () => {
  demo = spawn('make', ['demo'], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  for await (const line of createInterface({ input: demo.stdout! })) {
    url = /http:\/\/\S+/.exec(line)?.[0] ?? '';
    if (url) break;
  }
  demo.stdout!.resume();
  demo.stderr!.resume();
  browser = await chromium.launch({ executablePath, args: chromiumArgs });
});

afterAll(async () => {
  await browser?.close();
  const ended = once(demo, 'exit');
  process.kill(-demo.pid!, 'SIGINT');
  await ended;
});

for (const colorScheme of ['light', 'dark'] as const) {
  test(`the demo's page (${colorScheme})`, async () => {
    const page = await browser.newPage({ colorScheme, viewport: { width: 320, height: 640 } });
    await page.goto(url);
    await page.locator('#running .bar').first().waitFor();
    await page.evaluate(axe);
    const found = await page.evaluate(`axe.run().then(({ violations }) => violations.map(({ id, impact, nodes }) => [id, impact, nodes[0].html]))`);
    expect(found).toEqual([]);
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(320);
    const bar = page.getByRole('progressbar').first();
    expect(await bar.getAttribute('aria-label')).toBeTruthy();
    await expect.poll(() => bar.getAttribute('aria-valuetext')).toMatch(/^\d+ of \d+$/);
    // It does not chatter: the connection is live, and stays so.
    await expect.poll(() => page.locator('#connection').textContent()).toBe('Live');
    await page.evaluate(
      `window.said = []; new MutationObserver(() => said.push(document.querySelector('#connection').textContent)).observe(document.querySelector('#connection'), { childList: true })`,
    );
    await expect.poll(() => page.locator('#announced').textContent(), { timeout: 60_000 }).toMatch(/: (completed|failed)$/);
    expect(((await page.evaluate('said')) as string[]).filter((text) => text !== 'Live')).toEqual([]);
    await page.close();
  });
}
