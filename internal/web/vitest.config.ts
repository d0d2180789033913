import react from '@vitejs/plugin-react';
import { playwright } from '@vitest/browser-playwright';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'vite';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';
import { commands } from './test/commands.js';
import { chromium, chromiumArgs, freePort } from './test/origin.js';

if (!existsSync(chromium)) throw new Error(`no Chromium at ${chromium}: install it, or name it in CHROMIUM`);

process.env.TEST_ORIGIN_PORT ??= String(await freePort());
process.env.TEST_ADMIN_PORT ??= String(await freePort());

// Generous: only a hang is to meet them.
const timeouts = { testTimeout: 60_000, hookTimeout: 120_000, expect: { poll: { timeout: 20_000 } } };

const older = (name: string) => fileURLToPath(new URL(`test/react-18/node_modules/${name}`, import.meta.url));

/** Tests kill the origin: that it does not answer the proxy is no news. */
const quiet: Plugin = {
  name: 'quiet',
  configureServer({ config: { logger } }) {
    const { error } = logger;
    logger.error = (message, options) => message.includes('http proxy error') || error(message, options);
  },
};

function inBrowser(name: string, groupOrder: number, include: string[], alias: Record<string, string> = {}): TestProjectInlineConfiguration {
  return {
    plugins: [react(), quiet],
    resolve: { alias },
    cacheDir: `node_modules/.vite/${name}`,
    server: { proxy: { '/api': `http://127.0.0.1:${process.env.TEST_ORIGIN_PORT}` } },
    optimizeDeps: {
      include: [
        'react',
        'react-dom',
        'react-dom/client',
        'react-dom/server',
        'axe-core',
        'react/jsx-dev-runtime',
        '@tanstack/react-query',
        'vitest-browser-react',
      ],
    },
    test: {
      ...timeouts,
      name,
      include,
      sequence: { groupOrder }, // one after another: they share an origin, and kill it
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        provider: playwright({ launchOptions: { executablePath: chromium, args: chromiumArgs } }),
        instances: [{ browser: 'chromium' }],
        commands,
      },
    },
  };
}

export default defineConfig({
  test: {
    fileParallelism: false,
    silent: 'passed-only', // what a test logs is shown if it fails; --silent=false shows what the tests measure
    globalSetup: 'test/setup.ts', // one origin, for all that run in a browser
    projects: [
      inBrowser('browser', 0, ['hook/test/**/*.test.{ts,tsx}', 'example/test/**/*.test.tsx']),
      // The oldest React and TanStack Query that the hook promises to work with.
      inBrowser('react-18', 1, ['hook/test/hook.test.tsx'], {
        react: older('react'),
        'react-dom': older('react-dom'),
        '@tanstack/react-query': older('@tanstack/react-query'),
      }),
      {
        test: {
          ...timeouts,
          name: 'edge',
          sequence: { groupOrder: 2 },
          environment: 'node',
          include: [
            'worker/test/**/*.test.ts',
            'test/browser.test.ts',
            'test/msw.test.ts',
            'test/application.test.ts',
            'test/queues.test.ts',
            'test/tabs.test.ts',
            'test/element.test.ts',
          ],
        },
      },
      {
        test: {
          ...timeouts,
          name: 'engines',
          sequence: { groupOrder: 3 },
          environment: 'node',
          include: ['test/engines.test.ts', 'test/proxies.test.ts', 'test/pages.test.ts'],
        },
      },
    ],
  },
});
