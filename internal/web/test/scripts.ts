// The scripts of the hook, for pages of servers that serve no files.

import { readFileSync } from 'node:fs';

/** In the order in which they import one another: names and texts. */
export const scripts = () => ['protocol', 'connection', 'feed', 'watch'].map((name) => [name, readFileSync(`hook/dist/${name}.js`, 'utf8')]);

/** In a page: makes `watchJob` of `scripts`. */
export const importScripts = `
  const addresses = {};
  for (const [name, text] of scripts) {
    const whole = text.replace(/'.\\/(\\w+).js'/g, (_, used) => JSON.stringify(addresses[used]));
    addresses[name] = URL.createObjectURL(new Blob([whole], { type: 'text/javascript' }));
  }
  const { watchJob } = await import(addresses.watch);
`;
