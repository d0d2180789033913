// The three engines of browsers, as far as Debian has them, and one page in each.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium as playwright } from 'playwright';
import puppeteer from 'puppeteer-core';
import { chromium, chromiumArgs, eventually, freePort } from './origin.js';

export interface Page {
  goto(url: string): Promise<void>;
  /** Runs the body of a function in the page, with its arguments as `args`. */
  run<T>(body: string, ...args: unknown[]): Promise<T>;
  close(): Promise<void>;
}

export interface Engine {
  name: string;
  /** What is missing, and how to get it; null if it is there. */
  missing(): string | null;
  open(): Promise<Page>;
}

const firefox = process.env.FIREFOX ?? '/usr/bin/firefox-esr';
const webkitDriver = process.env.WEBKIT_DRIVER ?? '/usr/bin/WebKitWebDriver';
const miniBrowser = process.env.WEBKIT ?? `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/webkit2gtk-4.1/MiniBrowser`;
const displayServer = '/usr/bin/Xvfb';

const lacks = (name: string, packages: string, ...files: string[]) => {
  const missing = files.filter((file) => !existsSync(file));
  return missing.length > 0 ? `${name} is not tried: no ${missing.join(', ')} (Debian: apt-get install ${packages})` : null;
};

export const engines: Engine[] = [
  {
    name: 'Chromium',
    missing: () => lacks('Chromium', 'chromium', chromium),
    async open() {
      const browser = await playwright.launch({
        executablePath: chromium,
        args: chromiumArgs,
        ignoreDefaultArgs: ['--disable-back-forward-cache'], // as with people
      });
      const page = await browser.newPage();
      return {
        goto: async (url) => void (await page.goto(url, { timeout: 20_000 })),
        run: (body, ...args) => page.evaluate(`(async (...args) => {${body}})(...${JSON.stringify(args)})`),
        close: () => browser.close(),
      };
    },
  },
  {
    name: 'Firefox',
    missing: () => lacks('Firefox', 'firefox-esr', firefox),
    async open() {
      const browser = await puppeteer.launch({ browser: 'firefox', executablePath: firefox, headless: true });
      const page = await browser.newPage();
      return {
        goto: async (url) => void (await page.goto(url, { timeout: 20_000 })),
        run: async <T>(body: string, ...args: unknown[]) => (await page.evaluate(`(async (...args) => {${body}})(...${JSON.stringify(args)})`)) as T,
        close: () => browser.close(),
      };
    },
  },
  {
    name: 'WebKit',
    missing: () => lacks('WebKit', 'webkit2gtk-driver xvfb', webkitDriver, miniBrowser, displayServer),
    open: openWebKit,
  },
];

/** WebKitGTK's MiniBrowser, which needs a display, by WebDriver (https://www.w3.org/TR/webdriver2/). */
async function openWebKit(): Promise<Page> {
  const home = mkdtempSync(join(tmpdir(), 'jobprogress-webkit-'));
  const processes: ChildProcess[] = [];
  const start = (command: string, ...args: string[]) => {
    const env = { ...process.env, DISPLAY: display, HOME: home, XDG_CACHE_HOME: home, XDG_DATA_HOME: home, WEBKIT_DISABLE_COMPOSITING_MODE: '1' };
    processes.push(spawn(command, args, { env, stdio: 'ignore' }));
  };
  const display = `:${100 + Math.floor(Math.random() * 800)}`;
  start(displayServer, display, '-screen', '0', '1024x768x24', '-nolisten', 'tcp');
  await eventually('a display', () => existsSync(`/tmp/.X11-unix/X${display.slice(1)}`));
  const port = await freePort();
  start(webkitDriver, `--port=${port}`);
  const command = async (method: string, path: string, body?: object) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, ...(body && { body: JSON.stringify(body) }) });
    const { value } = (await answer.json()) as { value: unknown };
    if (!answer.ok) throw new Error(`${path}: ${JSON.stringify(value)}`);
    return value;
  };
  await eventually('WebKitWebDriver', async () => (await fetch(`http://127.0.0.1:${port}/status`).catch(() => null))?.ok === true);
  const { sessionId } = (await command('POST', '/session', {
    capabilities: {
      alwaysMatch: {
        acceptInsecureCerts: true,
        timeouts: { pageLoad: 20_000, script: 20_000 },
        'webkitgtk:browserOptions': { binary: miniBrowser, args: ['--automation'] },
      },
    },
  })) as { sessionId: string };
  return {
    goto: async (url) => void (await command('POST', `/session/${sessionId}/url`, { url })),
    run: async <T>(body: string, ...args: unknown[]) =>
      (await command('POST', `/session/${sessionId}/execute/async`, {
        script: `const done = arguments[arguments.length - 1]; (async (...args) => {${body}})(...${JSON.stringify(args)}).then(done)`,
        args: [],
      })) as T,
    async close() {
      await command('DELETE', `/session/${sessionId}`).catch(() => {});
      for (const one of processes.reverse()) one.kill();
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
