// One stream for all tabs of an origin: the tab that holds a lock (Web Locks) has it, and passes it on to the others
// (BroadcastChannel) what it says.
//
//   every tab   says which jobs it wants, and holds a lock of its own for as long as it lives
//   the leader  holds the lock of the account, opens streams for all that is wanted, and passes on what they say
//   followers   wait for that lock; while they are seen they ask the leader whether it lives, and take the lock from one that
//               does not answer

import type { EventSourceConstructor, EventSourceLike } from './connection.js';

/** What an EventSource of a tab wants: `key` says of which kind of stream, `ids` is null for the account's list. */
interface Want {
  key: string;
  ids: string[] | null;
}

/** What tabs say to one another. */
type Message =
  | { say: 'want'; tab: string; wants: Want[]; fresh?: string }
  | { say: 'leader' } // a new one: what is wanted?
  | { say: 'ping' | 'pong' }
  | { say: 'open'; stream: string; key: string; ids: string[] | null }
  | { say: 'event'; stream: string; type: string; data: string }
  | { say: 'error'; stream: string; readyState: number };

const CLOSED = 2; // EventSource.CLOSED
const mostJobs = 100; // of a stream; the server has no more
const longestQuery = 6_000; // characters in the URL of a stream: many proxies take 8,000
// In milliseconds:
const breath = 20; // in which tabs say what they want
const pingInterval = 500;
const leaderTimeout = 1_300; // without an answer

const constructors = new Map<string, EventSourceConstructor>();

/**
 * Makes the EventSource of the hooks' options that shares streams with the other tabs of this origin. Tabs share only what
 * they open for the same account; sign out with another, or reload. Where the browser has no Web Locks or no BroadcastChannel
 * each tab has its own streams.
 */
export function acrossTabs(
  account: string,
  EventSource: EventSourceConstructor | undefined = globalThis.EventSource,
): EventSourceConstructor | undefined {
  if (!EventSource || !globalThis.navigator?.locks || !globalThis.BroadcastChannel) return EventSource;
  let shared = constructors.get(account);
  if (!shared) constructors.set(account, (shared = shareStreams(`jobprogress ${account}`, EventSource)));
  return shared;
}

function shareStreams(name: string, RealEventSource: EventSourceConstructor): EventSourceConstructor {
  const tab = `${name} ${crypto.randomUUID()}`; // also its lock
  const sources = new Set<TabSource>();
  let leave: (() => void) | null = null; // ends the membership, while there are sources

  class TabSource implements EventSourceLike {
    static readonly key = name;
    readyState = 0;
    onmessage: EventSourceLike['onmessage'] = null;
    onerror: EventSourceLike['onerror'] = null;
    readonly listeners = new Map<string, (event: MessageEvent) => unknown>();
    readonly want: Want;
    stream = '';

    constructor(url: string, init?: { withCredentials?: boolean }) {
      const { origin, pathname, searchParams } = new URL(url, location.href);
      const ids = searchParams.getAll('id');
      this.want = { key: JSON.stringify([origin + pathname, ids.length > 0, !!init?.withCredentials]), ids: ids.length > 0 ? ids : null };
      sources.add(this);
      leave ??= join();
      tellWants(this.want.key);
    }

    addEventListener(type: string, listener: (event: MessageEvent) => unknown): void {
      this.listeners.set(type, listener);
    }

    close(): void {
      this.readyState = CLOSED;
      if (!sources.delete(this)) return;
      // One that takes its place comes at once.
      queueMicrotask(() => {
        if (sources.size > 0) tellWants();
        else leave?.();
      });
    }

    receive(message: Message): void {
      const { key, ids } = this.want;
      if (message.say === 'open') {
        if (message.key !== key || !(ids ?? []).every((id) => message.ids!.includes(id))) return;
        const again = this.stream !== '';
        this.stream = message.stream;
        if (again) this.fail(0); // all is sent again
        this.readyState = 1;
      } else if (message.say === 'event' && message.stream === this.stream) {
        const event = new MessageEvent(message.type, { data: message.data });
        if (message.type === 'message') this.onmessage?.(event);
        else this.listeners.get(message.type)?.(event);
      } else if (message.say === 'error' && message.stream === this.stream) this.fail(message.readyState);
    }

    fail(readyState: number): void {
      this.readyState = readyState;
      if (readyState === CLOSED) this.close();
      this.onerror?.(new Event('error'));
    }
  }

  let post: (message: Message) => void = () => {};
  let tellWants: (fresh?: string) => void = () => {};

  /** Becomes one of the tabs, until the returned function is called. */
  function join(): () => void {
    const channel = new BroadcastChannel(name);
    const left = new AbortController();
    let following = new AbortController(); // waiting for the lock
    let resign: (() => void) | null = null; // while this tab leads
    let alive = false; // this tab has its own lock
    let answered = Date.now(); // the leader, last
    let looked = Date.now(); // whether it does
    const wants = new Map<string, Want[]>(); // of all tabs, for the leader
    const streams = new Map<string, EventSourceLike>();
    const stale = new Set<string>(); // keys whose streams are to be opened anew
    let timer: ReturnType<typeof setTimeout> | undefined;

    const deliver = (message: Message) => {
      for (const source of [...sources]) source.receive(message);
    };
    post = (message) => {
      channel.postMessage(message);
      receive(message);
    };
    tellWants = (fresh) => {
      if (!alive) return; // the leader would take it for one that is gone
      const mine = [...sources].map(({ want }) => want);
      post({ say: 'want', tab, wants: mine, ...(fresh && { fresh }) });
    };

    const receive = (message: Message) => {
      switch (message.say) {
        case 'want':
          if (!resign) return;
          wants.set(message.tab, message.wants);
          if (message.fresh) stale.add(message.fresh);
          timer ??= setTimeout(() => void adjust(), breath);
          return;
        case 'leader':
          answered = Date.now();
          return sources.forEach(({ want }) => tellWants(want.key));
        case 'ping':
          return resign ? channel.postMessage({ say: 'pong' } satisfies Message) : undefined;
        case 'pong':
          answered = Date.now();
          return;
        default:
          answered = Date.now();
          deliver(message);
      }
    };
    channel.onmessage = ({ data }: MessageEvent<Message>) => receive(data);

    /** Opens the streams that are wanted, and closes those that are not. */
    const adjust = async () => {
      timer = undefined;
      const { held = [] } = await navigator.locks.query();
      if (!resign) return;
      const alive = new Set(held.map((lock) => lock.name));
      for (const other of wants.keys()) if (!alive.has(other) && other !== tab) wants.delete(other);
      const all = [...wants.values()].flat();
      for (const [stream, source] of streams) {
        const { key } = JSON.parse(stream) as { key: string };
        if (!stale.has(key) && all.some((want) => want.key === key)) continue;
        source.close();
        streams.delete(stream);
      }
      for (const key of stale) pack(all.filter((want) => want.key === key)).forEach((ids) => open(key, ids));
      stale.clear();
    };

    const open = (key: string, ids: string[] | null) => {
      const [path, , withCredentials] = JSON.parse(key) as [string, boolean, boolean];
      const query = [...(ids ?? []).map((id) => `id=${encodeURIComponent(id)}`), 'heartbeat=1'].join('&');
      const source = new RealEventSource(`${path}?${query}`, { withCredentials });
      const stream = JSON.stringify({ key, id: crypto.randomUUID() });
      streams.set(stream, source);
      post({ say: 'open', stream, key, ids });
      const pass = ({ type, data }: MessageEvent) => post({ say: 'event', stream, type, data });
      source.onmessage = pass;
      for (const type of ['synced', 'heartbeat', 'bus']) source.addEventListener(type, pass);
      source.onerror = () => {
        const { readyState } = source;
        if (readyState === CLOSED) streams.delete(stream);
        post({ say: 'error', stream, readyState });
      };
    };

    /** Leads until resign is called, or the lock is taken away. */
    const lead = () =>
      new Promise<void>((done) => {
        if (left.signal.aborted) return done();
        resign = () => {
          resign = null;
          clearTimeout(timer);
          timer = undefined;
          streams.forEach((source) => source.close());
          streams.clear();
          wants.clear();
          done();
        };
        post({ say: 'leader' });
      });

    const follow = (steal: boolean) => {
      following = new AbortController();
      answered = Date.now();
      // With steal there must be no signal.
      navigator.locks.request(name, steal ? { steal } : { signal: following.signal }, lead).catch(() => {
        if (!resign) return; // not waited for any more
        // It was taken away, because this tab was frozen. Who got its streams since must look for others.
        for (const stream of streams.keys()) post({ say: 'error', stream, readyState: CLOSED });
        resign();
        follow(false);
        sources.forEach(({ want }) => tellWants(want.key));
      });
    };

    const look = setInterval(() => {
      const now = Date.now();
      if (document.hidden || now - looked > leaderTimeout) answered = now; // this tab slept
      looked = now;
      if (resign || document.hidden) return;
      if (now - answered > leaderTimeout) {
        following.abort();
        follow(true);
      } else channel.postMessage({ say: 'ping' } satisfies Message);
    }, pingInterval);

    void navigator.locks.request(tab, () => {
      alive = true;
      sources.forEach(({ want }) => tellWants(want.key));
      return left.signal.aborted ? null : new Promise<void>((done) => left.signal.addEventListener('abort', () => done()));
    });
    follow(false);
    // A page that sleeps, or may come back, leads nobody.
    for (const type of ['freeze', 'pagehide'])
      addEventListener(type, () => [...sources].forEach((source) => source.fail(CLOSED)), { signal: left.signal, capture: true });
    return () => {
      clearInterval(look);
      following.abort();
      resign?.();
      left.abort();
      channel.close();
      post = tellWants = () => {};
      leave = null;
    };
  }

  return TabSource;
}

/** Puts all ids of each want into one of few streams. */
function pack(wants: Want[]): (string[] | null)[] {
  const streams: Set<string>[] = [];
  for (const { ids } of wants) {
    if (!ids) return [null];
    const room = streams.find((stream) => {
      const all = [...new Set([...stream, ...ids])];
      return all.length <= mostJobs && all.map(encodeURIComponent).join('&id=').length < longestQuery;
    });
    if (room) ids.forEach((id) => room.add(id));
    else streams.push(new Set(ids));
  }
  return streams.map((stream) => [...stream]);
}
