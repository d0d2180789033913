import { Origin } from './origin.js';

/** The one origin of the browser's tests. Its commands are in commands.ts. */
export default async function setup(): Promise<() => Promise<void>> {
  const origin = await new Origin(Number(process.env.TEST_ORIGIN_PORT), Number(process.env.TEST_ADMIN_PORT)).open();
  (globalThis as { origin?: Origin }).origin = origin;
  return () => origin.close();
}
