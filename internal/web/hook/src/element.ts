// <job-progress job="…">: the bar of a job, for pages without a framework. All of a page share one stream.

import type { JobState } from './feed.js';
import { isTerminal } from './protocol.js';
import { watchJob, type Watch } from './watch.js';

const shadow = `<style>
:host{display:block;--job-progress-color:#4655d6;--job-progress-failed-color:#c52b35;--job-progress-track:#8884;--job-progress-height:.6em}
[part=bar]{display:flex;height:var(--job-progress-height);border-radius:1em;background:var(--job-progress-track);overflow:hidden}
[part=done],[part=failed]{background:var(--job-progress-color);transition:width .2s}
[part=failed]{background:var(--job-progress-failed-color)}
[part=bar][hidden]{display:none}
[part=error]{color:var(--job-progress-failed-color)}
[role=status]{position:absolute;clip-path:inset(50%)}
@media(prefers-reduced-motion){*{transition:none!important}}
</style><div part=label></div><div part=bar role=progressbar aria-valuemin=0><div part=done></div><div part=failed></div></div><div part=text></div><div part=error></div><div role=status></div>`;

/**
 * The attributes: `job` is its id, `label` what it is; `base-url` and `with-credentials` are as the options of the hook. It sets
 * `status` (`running`, `completed` …) and `connection` (`open`, `reconnecting` …) on itself, for styles, and dispatches `change`,
 * which bubbles, with each state, which is its `state` then.
 */
export class JobProgressElement extends (globalThis.HTMLElement ?? class {}) {
  static readonly observedAttributes = ['job', 'base-url', 'with-credentials', 'label'];
  /** As it is shown; null while nothing is watched. */
  state: JobState | null = null;
  private watched: Watch<JobState> | null = null;
  private readonly root = this.attachShadow({ mode: 'open' });

  /** What stands below the bar, and is said of it. To be replaced, in other languages for example. */
  text({ progress, status, connectionState }: JobState): string {
    const { done = 0, total = 0, failed = 0, message } = progress ?? {};
    const away = ['reconnecting', 'polling', 'degraded'].includes(connectionState);
    return [status, total > 0 && `${done} of ${total}`, failed > 0 && `${failed} failed`, message, away && 'not live'].filter(Boolean).join(' · ');
  }

  connectedCallback(): void {
    this.disconnectedCallback();
    const job = this.getAttribute('job');
    this.root.innerHTML = shadow;
    if (!job) return;
    const url = `${(this.getAttribute('base-url') ?? '').replace(/\/+$/, '')}/api/jobs/${encodeURIComponent(job)}/progress`;
    this.watched = watchJob(url, { withCredentials: this.hasAttribute('with-credentials') });
    this.watched.subscribe(() => this.draw());
    this.draw();
  }

  attributeChangedCallback(name: string): void {
    if (name === 'label' && this.watched) this.draw();
    else if (this.isConnected) this.connectedCallback();
  }

  disconnectedCallback(): void {
    this.watched?.close();
    this.watched = this.state = null;
    this.removeAttribute('status');
    this.removeAttribute('connection');
  }

  private draw(): void {
    const before = this.state?.status;
    const state = (this.state = this.watched!.getState());
    const { progress, status, error, connectionError, connectionState } = state;
    const { done = 0, total = 0, failed = 0 } = progress ?? {};
    const part = (name: string) => this.root.querySelector<HTMLElement>(`[part=${name}]`)!;
    const share = (count: number) => `${total > 0 ? Math.min(100, (100 * count) / total) : 0}%`;
    const text = this.text(state);
    const label = this.getAttribute('label') ?? 'Job';
    part('label').textContent = this.getAttribute('label');
    part('bar').hidden = connectionState === 'closed' && !!connectionError; // there is nothing to show
    part('done').style.width = share(Math.max(0, done - failed));
    part('failed').style.width = share(failed);
    part('text').textContent = text;
    part('error').textContent = error ?? connectionError?.message ?? '';
    Object.assign(part('bar'), { ariaLabel: label, ariaValueMax: total || null, ariaValueNow: total ? done : null, ariaValueText: text });
    this.setAttribute('status', status ?? '');
    this.setAttribute('connection', connectionState);
    // The end is said once, to those who saw it run.
    if (before && !isTerminal(before) && isTerminal(status))
      this.root.querySelector('[role=status]')!.textContent = [`${label}: ${text}`, error].filter(Boolean).join('. ');
    this.dispatchEvent(new CustomEvent('change', { detail: state, bubbles: true }));
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'job-progress': JobProgressElement;
  }
}

const elements = globalThis.customElements;
if (elements && !elements.get('job-progress')) elements.define('job-progress', JobProgressElement);
