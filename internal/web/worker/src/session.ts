// Sessions that live at the edge: the service behind knows nothing of them, and gets a short-lived token instead.

/** A KV namespace, as far as it is used. */
export interface Namespace {
  get(key: string): Promise<string | null>;
}

export interface SessionEnv {
  /** The key of the tokens, which the service has as JOBPROGRESS_JWT_SECRET. Without it credentials go on as they come. */
  JWT_SECRET?: string;
  /** The cookie that holds the session. */
  SESSION_COOKIE?: string;
  /** Sessions: `session:` and the cookie's value is the key, the account_id the value. */
  SESSIONS?: Namespace;
  /** What the service has as JOBPROGRESS_JWT_ISSUER and JOBPROGRESS_JWT_AUDIENCE, if it has them. */
  JWT_ISSUER?: string;
  JWT_AUDIENCE?: string;
}

/**
 * The account whose session this is, or null if it is none. Adapt this function: it looks into a KV namespace, and yours
 * may be in D1, in a Durable Object, or in a signed cookie.
 */
export async function accountOf(session: string, env: SessionEnv): Promise<string | null> {
  if (!/^[\w.~-]{1,256}$/.test(session)) return null; // whatever that is, it is no session
  return (await env.SESSIONS?.get(`session:${session}`)) ?? null;
}

/**
 * How long a token is good for, in seconds. A stream ends with it, and EventSource comes back and gets the next: those that
 * were opened together not all at once.
 */
const lifetime = () => 540 + Math.floor(Math.random() * 60);

/** The Authorization header for a request, or null if nobody is known to send it. */
export async function authorization(request: Request, env: SessionEnv & { JWT_SECRET: string }): Promise<string | null> {
  const session = cookie(request, env.SESSION_COOKIE ?? 'session');
  const account = session && (await accountOf(session, env));
  return account ? `Bearer ${await mint(account, env)}` : null;
}

function cookie(request: Request, name: string): string | null {
  for (const pair of (request.headers.get('Cookie') ?? '').split(';')) {
    const [key, ...value] = pair.split('=');
    if (key?.trim() === name)
      return (
        value
          .join('=')
          .trim()
          .replace(/^"(.*)"$/, '$1') || null
      );
  }
  return null;
}

/** An HS256 token (RFC 7519) for the account. */
async function mint(account: string, { JWT_SECRET, JWT_ISSUER, JWT_AUDIENCE }: SessionEnv & { JWT_SECRET: string }): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  const body = [
    { alg: 'HS256', typ: 'JWT' },
    { sub: account, iat: now, exp: now + lifetime(), iss: JWT_ISSUER, aud: JWT_AUDIENCE },
  ]
    .map((part) => base64url(new TextEncoder().encode(JSON.stringify(part))))
    .join('.');
  const key = await crypto.subtle.importKey('raw', new TextEncoder().encode(JWT_SECRET), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const signature = await crypto.subtle.sign('HMAC', key, new TextEncoder().encode(body));
  return `${body}.${base64url(new Uint8Array(signature))}`;
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '');
}
