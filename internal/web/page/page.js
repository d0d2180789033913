// The demo's page: the jobs of who is signed in, live, by one stream for all tabs. Everything from outside becomes text,
// never HTML.

import { isTerminal } from './hook/protocol.js';
import { acrossTabs } from './hook/tabs.js';
import { watchJobs } from './hook/watch.js';

const names = {
  sync_liked_songs: 'Sync liked songs',
  sync_playlists: 'Sync playlists',
  song_analysis: 'Song analysis',
  playlist_analysis: 'Playlist analysis',
  matching: 'Matching',
};
const itemsShown = 4;
const endedShown = 9;

const connectionTexts = {
  connecting: 'Connecting',
  open: 'Live',
  reconnecting: 'Reconnecting …',
  polling: 'Not live: asking every few seconds',
  degraded: 'Database out of reach',
  closed: 'Disconnected: reload the page',
};

const find = (selector) => document.querySelector(selector);

/** The card of one job. */
class Card {
  element = find('#job').content.firstElementChild.cloneNode(true);
  state = null; // as it is drawn
  begun = NaN; // milliseconds since 1970
  ended = NaN;

  constructor(id) {
    this.element.id = `job-${id}`;
  }

  draw(state) {
    const { job, status, progress, error, items } = state;
    const { done = 0, total = 0, succeeded = 0, failed = 0, message = '' } = progress ?? {};
    const before = this.state?.status;
    if (job !== this.state?.job) {
      this.begun = Date.parse(job.startedAt);
      this.ended = Date.parse(job.completedAt);
    } else if (status !== before) {
      if (status === 'running') [this.begun, this.ended] = [Date.now(), NaN];
      if (isTerminal(status)) this.ended = Date.now();
    }
    this.state = state;
    const name = names[job.type] ?? job.type;
    if (before && !isTerminal(before) && isTerminal(status)) find('#announced').textContent = `${name}: ${status}`;

    const part = (selector) => this.element.querySelector(selector);
    const share = (n) => (total > 0 ? `${Math.min(100, (100 * n) / total)}%` : '0');
    const counts = total > 0 ? `${done} of ${total}` : '';
    this.element.dataset.status = status;
    part('.type').textContent = name;
    part('.status').textContent = status;
    part('.bar .succeeded').style.width = share(Math.max(succeeded, done - failed));
    part('.bar .failed').style.width = share(failed);
    Object.assign(part('.bar'), { ariaValueMax: total, ariaValueNow: done, ariaValueText: counts || status, ariaLabel: name });
    part('.done').textContent = counts;
    part('.percent').textContent = total > 0 ? `${Math.floor((100 * done) / total)} %` : '';
    this.drawDuration();
    part('.failures').textContent = failed > 0 ? `${failed} failed` : '';
    part('.message').textContent = message;
    part('.error').textContent = error ?? '';
    part('.items').replaceChildren(...shown(items).map(itemLine));
  }

  drawDuration() {
    const until = isTerminal(this.state.status) ? this.ended : Date.now();
    const seconds = Math.max(0, Math.floor((until - this.begun) / 1000));
    this.element.querySelector('.duration').textContent = Number.isNaN(seconds)
      ? ''
      : seconds < 60
        ? `${seconds} s`
        : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  }
}

/** The items that are shown: those under way first, those that wait last. */
function shown(items) {
  const recent = [...items.values()].reverse();
  recent.sort((a, b) => (b.status === 'in_progress') - (a.status === 'in_progress') || (a.status === 'queued') - (b.status === 'queued'));
  return recent.slice(0, itemsShown);
}

function itemLine({ status, label, itemId }) {
  const line = document.createElement('li');
  line.dataset.status = status;
  const text = document.createElement('span');
  text.className = 'label';
  text.textContent = label ?? itemId;
  line.append(text);
  return line;
}

/** @type {Map<string, Card>} */
const cards = new Map();

function draw({ jobs, connectionState }) {
  const running = [];
  const ended = [];
  for (const [id, state] of jobs) {
    const card = cards.get(id) ?? new Card(id);
    cards.set(id, card);
    if (card.state !== state) card.draw(state);
    (isTerminal(state.status) ? ended : running).push(card.element);
  }
  for (const id of cards.keys()) if (!jobs.has(id)) cards.delete(id);
  place('#running', running);
  place('#ended', ended.slice(0, endedShown));

  const connection = find('#connection');
  if (connection.dataset.state === connectionState) return;
  connection.dataset.state = connectionState;
  connection.textContent = connectionTexts[connectionState];
}

/** Puts the elements into the list, which is left alone if they are there: motion in it would begin anew. */
function place(selector, elements) {
  const list = find(selector);
  if (list.children.length !== elements.length || elements.some((element, i) => list.children[i] !== element)) list.replaceChildren(...elements);
}

async function start() {
  const { account, accounts } = await (await fetch('/session')).json(); // it signs the visitor in
  find('#accounts').append(
    ...accounts.map(({ ID, Name }) => {
      const link = document.createElement('a');
      link.href = `/sign-in/${ID}`;
      link.textContent = Name;
      if (ID === account.ID) link.ariaCurrent = 'true';
      return link;
    }),
  );
  const watched = watchJobs('/api/jobs/progress', { EventSource: acrossTabs(account.ID) });
  watched.subscribe(() => draw(watched.getState()));
  setInterval(() => cards.forEach((card) => card.drawDuration()), 1000);
}

start();
