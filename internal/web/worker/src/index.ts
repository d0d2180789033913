// A Cloudflare Worker that puts the service behind the application's own origin. The body of a stream goes through
// untouched: a transformation in JavaScript would be buffered by whatever compresses.

import { authorization, type SessionEnv } from './session.js';

export interface Env extends SessionEnv {
  /** Where the service is, https://host. */
  ORIGIN: string;
}

const streamPath = /^\/api\/jobs\/[^/]+\/progress$/;

/** What a proxy or Cloudflare itself answers when the origin is away. */
const away = [502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530];

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const url = new URL(request.url);
    if (!url.pathname.startsWith('/api/jobs/')) return problem(404, 'not_found', 'There is nothing here.');

    const headers = new Headers(request.headers);
    headers.set('Accept-Encoding', 'identity');
    // To the service this origin would be a foreign one.
    if (headers.get('Origin') === url.origin) headers.delete('Origin');
    if (env.JWT_SECRET) {
      let value: string | null;
      try {
        value = await authorization(request, { ...env, JWT_SECRET: env.JWT_SECRET });
      } catch (error) {
        console.error('session not looked up', error);
        return unavailable(request, url);
      }
      headers.delete('Cookie');
      if (value) headers.set('Authorization', value);
      else headers.delete('Authorization');
    }

    let response: Response;
    try {
      response = await fetch(new URL(url.pathname + url.search, env.ORIGIN), {
        method: request.method,
        headers,
        body: request.body,
        redirect: 'manual',
        signal: request.signal,
      });
    } catch (error) {
      console.error('origin unreachable', error);
      return unavailable(request, url);
    }
    if (away.includes(response.status) && response.headers.get('Content-Type') !== 'application/problem+json') {
      console.error('origin answers', response.status);
      return unavailable(request, url);
    }
    return response;
  },
};

/** EventSource gives up for ever on any status but 200; everybody else is told the truth. */
function unavailable(request: Request, url: URL): Response {
  const seconds = 2 + Math.random() * 3;
  if (streamPath.test(url.pathname) && (request.headers.get('Accept') ?? '').includes('text/event-stream')) {
    return new Response(`retry: ${Math.round(seconds * 1000)}\n: upstream_unavailable\n\n`, {
      headers: { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' },
    });
  }
  return problem(503, 'upstream_unavailable', 'The service is away for the moment.', { 'Retry-After': String(Math.ceil(seconds)) });
}

function problem(status: number, code: string, detail: string, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify({ type: 'about:blank', title: code, status, code, detail }), {
    status,
    headers: { ...headers, 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store' },
  });
}
