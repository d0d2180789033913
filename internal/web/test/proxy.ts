// The proxies that pages meet: one site that serves the page and the scripts of the hook, and passes the API on, well or badly.

import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AddressInfo } from 'node:net';

/**
 * `pass` as it comes · `collect` all of the answer, then pass it on · `hold` the last chunk until there is another · `reset`
 * the connection a second after the answer began · `idle` cuts what is silent for a second, rudely · `login` redirects to a
 * page · `502` and `401` are answered instead.
 */
export type Mode = 'pass' | 'collect' | 'hold' | 'reset' | 'idle' | 'login' | '502' | '401';

export class FaultyProxy {
  mode: Mode = 'pass';
  /** What is served at all other paths, if it is not the page with the scripts of the hook. */
  page = '';
  private readonly server: Server;

  constructor(private readonly origin: () => string) {
    this.server = createServer((incoming, outgoing) => this.serve(incoming, outgoing));
    this.server.keepAliveTimeout = 60_000;
  }

  async open(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return this;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  private serve(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const url = incoming.url!;
    const script = /^\/hook\/([\w-]+\.js)$/.exec(url)?.[1];
    if (script) {
      outgoing.setHeader('Content-Type', 'text/javascript');
      outgoing.end(readFileSync(join('hook/dist', script)));
    } else if (!url.startsWith('/api/')) {
      outgoing.setHeader('Content-Type', 'text/html; charset=utf-8');
      if (this.page) return void outgoing.end(this.page);
      outgoing.end(
        '<!doctype html><title>page</title><script type=module>import * as watch from "/hook/watch.js"; import * as tabs from "/hook/tabs.js"; Object.assign(window, watch, tabs)</script>',
      );
    } else if (this.mode === 'login') {
      outgoing.writeHead(302, { Location: '/login' }).end();
    } else if (this.mode === '502' || this.mode === '401') {
      outgoing.writeHead(Number(this.mode), { 'Content-Type': 'text/html' }).end('<h1>Sorry</h1>');
    } else {
      this.pass(incoming, outgoing, this.mode);
    }
  }

  private pass(incoming: IncomingMessage, outgoing: ServerResponse, mode: Mode): void {
    const passed = request(this.origin() + incoming.url, { method: incoming.method, headers: incoming.headers }, (answer) => {
      const { 'content-length': _, ...headers } = answer.headers;
      const held: Buffer[] = [];
      let idle: NodeJS.Timeout | undefined;
      if (mode === 'reset') setTimeout(() => outgoing.socket?.resetAndDestroy(), 1000);
      if (mode !== 'collect') {
        outgoing.writeHead(answer.statusCode!, headers);
        outgoing.flushHeaders();
      }
      answer.on('data', (chunk: Buffer) => {
        held.push(chunk);
        if (mode === 'collect') return;
        clearTimeout(idle);
        if (mode === 'idle') idle = setTimeout(() => outgoing.socket?.resetAndDestroy(), 1000);
        while (held.length > (mode === 'hold' ? 1 : 0)) outgoing.write(held.shift());
      });
      answer.on('end', () => {
        if (!outgoing.headersSent) outgoing.writeHead(answer.statusCode!, headers);
        outgoing.end(Buffer.concat(held));
      });
      answer.on('error', () => outgoing.destroy());
    });
    outgoing.on('close', () => passed.destroy());
    passed.on('error', () => outgoing.destroy());
    passed.end();
  }
}
