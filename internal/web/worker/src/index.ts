// A Cloudflare Worker that puts the service behind the application's own origin. The body of a stream goes through
// untouched: a transformation in JavaScript would be buffered by whatever compresses.

import { authorization, type SessionEnv } from './session.js';

export interface Env extends SessionEnv {
  /** Where the service is, https://host. */
  ORIGIN: string;
  /** What the service has as JOBPROGRESS_ALLOWED_ORIGINS: these may read what the Worker itself answers. */
  ALLOWED_ORIGINS?: string;
  /** How long the service may take to begin its answer, in milliseconds (15,000). */
  ANSWER_TIMEOUT?: string;
}

/** The service's paths, and those of them that are streams: of one job, of many. */
const servicePath = /^\/api\/jobs(\/|$)/;
const streamPath = /^\/api\/jobs\/([^/]+\/)?progress$/;

/** What a proxy or Cloudflare itself answers when the origin is away. */
const away = [502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530];

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const url = new URL(request.url);
    if (!servicePath.test(url.pathname)) return problem(404, 'not_found', 'There is nothing here.');
    try {
      return await pass(request, url, env);
    } catch (error) {
      console.error('no answer of the service', error);
      return unavailable(request, url, env);
    }
  },
};

async function pass(request: Request, url: URL, env: Env): Promise<Response> {
  const headers = new Headers(request.headers);
  headers.set('Accept-Encoding', 'identity');
  // To the service this origin would be a foreign one.
  if (headers.get('Origin') === url.origin) headers.delete('Origin');
  if (env.JWT_SECRET) {
    const value = await authorization(request, { ...env, JWT_SECRET: env.JWT_SECRET });
    headers.delete('Cookie');
    if (value) headers.set('Authorization', value);
    else headers.delete('Authorization');
  }

  const leave = new AbortController();
  request.signal.addEventListener('abort', () => leave.abort());
  const deadline = setTimeout(() => leave.abort(new Error('it takes too long')), Number(env.ANSWER_TIMEOUT ?? 15_000));
  const response = await fetch(new URL(url.pathname + url.search, env.ORIGIN), {
    method: request.method,
    headers,
    body: request.body,
    redirect: 'manual',
    signal: leave.signal,
  }).finally(() => clearTimeout(deadline));
  if (!isAnswer(request, url, response)) {
    console.error('somebody else answers for the service', response.status);
    return unavailable(request, url, env);
  }
  const passed = new Response(response.body, response);
  passed.headers.delete('Set-Cookie'); // of a load balancer on the way
  return passed;
}

/** Reports whether this is the service's answer, and not that of something before it: a challenge, a login, a limit. */
function isAnswer(request: Request, url: URL, response: Response): boolean {
  const type = (response.headers.get('Content-Type') ?? '').split(';')[0];
  if (type === 'application/problem+json') return true;
  if (!isStream(request, url)) return !away.includes(response.status);
  return response.status === 204 || (response.status === 200 && type === 'text/event-stream');
}

/** EventSource gives up for ever on any status but 200. */
function isStream(request: Request, url: URL): boolean {
  return streamPath.test(url.pathname) && (request.headers.get('Accept') ?? '').includes('text/event-stream');
}

/** To EventSource: come back. Everybody else gets the status. */
function unavailable(request: Request, url: URL, env: Env): Response {
  const seconds = 2 + Math.random() * 3;
  const response = isStream(request, url)
    ? new Response(`retry: ${Math.round(seconds * 1000)}\n: upstream_unavailable\n\n`, {
        headers: { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' },
      })
    : problem(503, 'upstream_unavailable', 'The service is away for the moment.', { 'Retry-After': String(Math.ceil(seconds)) });
  const origin = request.headers.get('Origin');
  if (origin && (env.ALLOWED_ORIGINS ?? '').split(',').some((allowed) => allowed.trim() === origin)) {
    // Without these a page of another origin can't read it, and EventSource gives up.
    response.headers.set('Access-Control-Allow-Origin', origin);
    response.headers.set('Access-Control-Allow-Credentials', 'true');
  }
  response.headers.append('Vary', 'Origin');
  return response;
}

function problem(status: number, code: string, detail: string, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify({ type: 'about:blank', title: code, status, code, detail }), {
    status,
    headers: { ...headers, 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store' },
  });
}
