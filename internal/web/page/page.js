// The demo's page: a card for each job of who is signed in, kept current by one stream a running job.
// Everything from outside becomes text, never HTML.

import { watchJob } from "./hook/watch.js";

const names = {
  sync_liked_songs: "Sync liked songs",
  sync_playlists: "Sync playlists",
  song_analysis: "Song analysis",
  playlist_analysis: "Playlist analysis",
  matching: "Matching",
};
const terminal = new Set(["completed", "failed"]);
const itemsShown = 4;
const listInterval = 2000; // ms between looks at the list of jobs

/** @type {Map<string, Job>} */
const jobs = new Map();

class Job {
  constructor({ id, type, status }) {
    this.id = id;
    this.items = new Map();
    this.progress = { done: 0, total: 0, succeeded: 0, failed: 0 };
    this.status = status;
    this.error = "";
    this.connection = "connecting";
    this.card = document.querySelector("#job").content.firstElementChild.cloneNode(true);
    this.card.id = `job-${id}`;
    this.name = names[type] ?? type;
    this.card.querySelector(".type").textContent = this.name;
    if (terminal.has(status)) this.read();
    else this.watch();
  }

  /** An ended job needs no stream: its state is read once. */
  async read() {
    this.connection = "ended";
    const response = await fetch(`/api/jobs/${this.id}`);
    if (!response.ok) return;
    const { progress, status, error } = await response.json();
    Object.assign(this, { progress, status, error: error ?? "" });
    this.draw();
  }

  watch() {
    // A browser opens six connections to a host, in all tabs together: those that nobody sees give theirs back.
    this.watched = watchJob(`/api/jobs/${this.id}/progress`, { pauseWhenHidden: true });
    this.watched.subscribe(() => this.take(this.watched.getState()));
  }

  take({ status, progress, error, items, connectionState, connectionError }) {
    if (terminal.has(status) && !terminal.has(this.status)) document.querySelector("#announced").textContent = `${this.name}: ${status}`;
    this.status = status ?? this.status;
    this.progress = progress ?? this.progress;
    this.error = error ?? "";
    this.items = items;
    const gone = connectionError?.code === "job_not_found";
    this.connection = connectionState === "closed" && (gone || terminal.has(this.status)) ? "ended" : connectionState;
    this.draw();
    drawConnection();
  }

  draw() {
    const { card, progress, status } = this;
    card.dataset.status = status;
    card.querySelector(".status").textContent = status;
    const share = (n) => (progress.total > 0 ? `${Math.min(100, (100 * n) / progress.total)}%` : "0");
    card.querySelector(".bar .succeeded").style.width = share(Math.max(progress.succeeded, progress.done - progress.failed));
    card.querySelector(".bar .failed").style.width = share(progress.failed);
    const bar = card.querySelector(".bar");
    bar.ariaValueMax = progress.total;
    bar.ariaValueNow = progress.done;
    bar.ariaValueText = `${progress.done} of ${progress.total}`;
    bar.ariaLabel = this.name;
    card.querySelector(".done").textContent = progress.total > 0 ? `${progress.done} of ${progress.total}` : "";
    card.querySelector(".failures").textContent = progress.failed > 0 ? `${progress.failed} failed` : "";
    const error = card.querySelector(".error");
    error.textContent = this.error;
    error.hidden = this.error === "";
    this.drawItems();
    const list = document.querySelector(terminal.has(status) ? "#ended" : "#running");
    if (card.parentElement !== list) list.prepend(card);
  }

  drawItems() {
    const recent = [...this.items.values()].reverse();
    recent.sort((a, b) => (b.status === "in_progress") - (a.status === "in_progress") || (a.status === "queued") - (b.status === "queued"));
    const lines = recent.slice(0, itemsShown).map(({ status, label, itemId }) => {
      const line = document.createElement("li");
      line.dataset.status = status;
      const text = document.createElement("span");
      text.className = "label";
      text.textContent = label ?? itemId;
      line.append(text);
      return line;
    });
    this.card.querySelector(".items").replaceChildren(...lines);
  }

  close() {
    this.watched?.close();
  }

  remove() {
    this.close();
    this.card.remove();
  }
}

const connectionTexts = {
  open: "Live",
  idle: "Nothing to watch",
  reconnecting: "Reconnecting …",
  polling: "Not live: asking every few seconds",
  degraded: "Database out of reach",
  closed: "Disconnected: reload the page",
};

/** One line for all streams: the worst of them. */
function drawConnection() {
  const open = [...jobs.values()].filter((job) => job.connection !== "ended");
  const some = (...states) => open.some((job) => states.includes(job.connection));
  let state = "open";
  if (open.length === 0) state = "idle";
  else if (some("closed")) state = "closed";
  else if (some("reconnecting")) state = "reconnecting";
  else if (some("polling")) state = "polling";
  else if (some("degraded")) state = "degraded";
  const element = document.querySelector("#connection");
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  element.textContent = connectionTexts[state];
}

/** New jobs appear, and those that fall off the list go. */
async function list() {
  try {
    const response = await fetch("/jobs");
    if (!response.ok) return;
    const listed = (await response.json()) ?? [];
    for (const summary of listed.toReversed()) {
      if (jobs.has(summary.id)) continue;
      const job = new Job(summary);
      jobs.set(summary.id, job);
      job.draw();
    }
    const ids = new Set(listed.map(({ id }) => id));
    for (const [id, job] of jobs) {
      if (ids.has(id)) continue;
      job.remove();
      jobs.delete(id);
    }
    drawConnection();
  } catch {
    // The server is away; the streams say so.
  } finally {
    setTimeout(list, listInterval);
  }
}

async function start() {
  const { account, accounts } = await (await fetch("/session")).json();
  document.querySelector("#accounts").append(
    ...accounts.map(({ ID, Name }) => {
      const link = document.createElement("a");
      link.href = `/sign-in/${ID}`;
      link.textContent = Name;
      if (ID === account.ID) link.ariaCurrent = "true";
      return link;
    }),
  );
  list();
}

start();
