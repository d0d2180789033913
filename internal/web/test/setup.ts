import type { TestProject } from 'vitest/node';
import { Origin } from './origin.js';

declare module 'vitest' {
  interface ProvidedContext {
    port: number;
  }
}

let origin: Origin | undefined;

/** The one origin of the browser's tests. Its commands are in commands.ts. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const port = Number(process.env.TEST_ORIGIN_PORT);
  origin = await new Origin(port, Number(process.env.TEST_ADMIN_PORT)).open();
  (globalThis as { origin?: Origin }).origin = origin;
  project.provide('port', port);
  return () => origin!.close();
}
