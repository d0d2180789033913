import react from '@vitejs/plugin-react';
import { playwright } from '@vitest/browser-playwright';
import { existsSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import { commands } from './test/commands.js';
import { chromium, chromiumArgs, freePort } from './test/origin.js';

if (!existsSync(chromium)) throw new Error(`no Chromium at ${chromium}: install it, or name it in CHROMIUM`);

process.env.TEST_ORIGIN_PORT ??= String(await freePort());
process.env.TEST_ADMIN_PORT ??= String(await freePort());

// Generous: only a hang is to meet them.
const timeouts = { testTimeout: 60_000, hookTimeout: 120_000 };

export default defineConfig({
  test: {
    fileParallelism: false,
    projects: [
      {
        plugins: [react()],
        server: { proxy: { '/api': `http://127.0.0.1:${process.env.TEST_ORIGIN_PORT}` } },
        optimizeDeps: {
          include: ['react', 'react-dom', 'react-dom/client', 'react/jsx-dev-runtime', '@tanstack/react-query', 'vitest-browser-react'],
        },
        test: {
          ...timeouts,
          name: 'browser',
          include: ['hook/test/**/*.test.{ts,tsx}', 'example/test/**/*.test.tsx'],
          globalSetup: 'test/setup.ts',
          browser: {
            enabled: true,
            headless: true,
            screenshotFailures: false,
            provider: playwright({ launchOptions: { executablePath: chromium, args: chromiumArgs } }),
            instances: [{ browser: 'chromium' }],
            commands,
          },
        },
      },
      {
        test: { ...timeouts, name: 'edge', environment: 'node', include: ['worker/test/**/*.test.ts', 'test/**/*.test.ts'] },
      },
    ],
  },
});
