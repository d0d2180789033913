// A server, a site that has it behind itself, and a browser: for the tests of a file.

import { chromium, type Browser } from 'playwright';
import { afterAll, beforeAll } from 'vitest';
import { chromium as executablePath, chromiumArgs, freePort, Origin } from './origin.js';
import { FaultyProxy } from './proxy.js';

export interface Setting {
  origin: Origin;
  site: FaultyProxy;
  browser: Browser;
}

/** Sets them up before the tests; its fields are there in a test. */
export function useSite(): Setting {
  const its = {} as Setting;
  beforeAll(async () => {
    its.origin = await new Origin(await freePort(), await freePort()).open();
    its.site = await new FaultyProxy(() => its.origin.url).open();
    its.browser = await chromium.launch({ executablePath, args: chromiumArgs });
  });
  afterAll(async () => {
    await its.browser?.close();
    its.site?.close();
    await its.origin?.close();
  });
  return its;
}
