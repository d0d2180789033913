// An Express application whose sessions nobody else can read, of which the service asks who is there.

import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { fromNodeHeaders, toNodeHandler } from 'better-auth/node';
import cookieSession from 'cookie-session';
import express from 'express';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually, freePort, Origin } from './origin.js';

let application: Server;
let url: string;
let origin: Origin;

beforeAll(async () => {
  const auth = betterAuth({
    baseURL: 'http://127.0.0.1',
    secret: 'a secret of the application, of at least 32 bytes',
    database: memoryAdapter({ user: [], session: [], account: [], verification: [] }),
    emailAndPassword: { enabled: true },
    advanced: { database: { generateId: () => crypto.randomUUID() } },
    session: { cookieCache: { enabled: true } },
    rateLimit: { enabled: false },
  });
  const app = express();
  app.all('/api/auth/{*any}', toNodeHandler(auth));
  app.use(cookieSession({ name: 'sid', keys: ['a key of the application'] }));
  app.post('/sign-in/:user', (request, response) => {
    request.session!.user = request.params.user;
    response.end();
  });
  // What the README says of Express, and of better-auth.
  app.get('/whoami', async (request, response) => {
    const account = request.session?.user ?? (await auth.api.getSession({ headers: fromNodeHeaders(request.headers) }))?.user.id;
    if (account) response.json({ account });
    else response.sendStatus(401);
  });
  application = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => application.once('listening', resolve));
  url = `http://127.0.0.1:${(application.address() as AddressInfo).port}`;
  origin = await new Origin(await freePort(), await freePort(), ['--jwt-secret=', '--auth-url', `${url}/whoami`, '--backstop-interval', '1s']).open();
});

afterAll(async () => {
  application?.closeAllConnections();
  application?.close();
  await origin?.close();
});

const cookies = (response: Response) =>
  response.headers
    .getSetCookie()
    .map((cookie) => cookie.split(';')[0])
    .join('; ');

/** Opens the stream of a new job of the account's with a cookie, and tells its first lines. */
async function watch(account: string, Cookie: string): Promise<string> {
  await origin.sql(`insert into account (id, name) values ($1, 'x') on conflict do nothing`, [account]);
  const id = await origin.insert(account);
  const leave = new AbortController();
  const response = await fetch(`${origin.url}/api/jobs/${id}/progress`, { headers: { Cookie }, signal: leave.signal });
  if (response.status !== 200) return `${response.status}`;
  const { value } = await response.body!.getReader().read();
  leave.abort();
  return new TextDecoder().decode(value);
}

test('cookie-session', async () => {
  const [ada, ben] = [crypto.randomUUID(), crypto.randomUUID()];
  const signedIn = cookies(await fetch(`${url}/sign-in/${ada}`, { method: 'POST' }));
  expect(signedIn).toContain('sid.sig=');
  expect(await watch(ada, signedIn)).toContain('"status":"running"');
  expect(await watch(ben, signedIn)).toBe('404');
  expect(await watch(ada, signedIn.replace(/sid\.sig=.*/, 'sid.sig=forged'))).toBe('401');
});

test('better-auth, until one signs out', async () => {
  const ask = (path: string, body: object, headers = {}) =>
    fetch(`${url}/api/auth/${path}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Origin: 'http://127.0.0.1', ...headers },
      body: JSON.stringify(body),
    });
  const answer = await ask('sign-up/email', { name: 'Ada', email: 'ada@app.example', password: 'correct horse battery' });
  const { user } = (await answer.json()) as { user: { id: string } };
  const signedIn = cookies(answer);
  expect(await watch(user.id, signedIn)).toContain('"status":"running"');

  const id = await origin.insert(user.id);
  const stream = await fetch(`${origin.url}/api/jobs/${id}/progress`, {
    headers: { Cookie: signedIn.replace(/; better-auth\.session_data=[^;]*/, '') },
  });
  let ended = false;
  void stream.text().then(() => (ended = true));
  await ask('sign-out', {}, { Cookie: signedIn });
  await eventually('ended', () => ended);
});
