import { useEffect, useRef, useState } from 'react';
import { isTerminal, useJobs, type Item, type JobState, type JobStatus, type Progress } from 'use-job-progress';
import { acrossTabs } from 'use-job-progress/tabs';

const names: Record<string, string> = {
  sync_liked_songs: 'Sync liked songs',
  sync_playlists: 'Sync playlists',
  song_analysis: 'Song analysis',
  playlist_analysis: 'Playlist analysis',
  matching: 'Matching',
};

/** The jobs of the account that is signed in: all tabs show them by one stream. */
export function App({ account }: { account: string }) {
  const { jobs, connectionState, error, reconnect } = useJobs(undefined, { EventSource: acrossTabs(account) });
  const [chosen, choose] = useState<string | null>(null);
  const said = useEnds(jobs);
  const shown = chosen && jobs.has(chosen) ? chosen : [...jobs.keys()][0];
  return (
    <main>
      <h1>
        Jobs <Connection state={connectionState} />
      </h1>
      {error && (
        <p role="alert">
          {error.message}{' '}
          <button type="button" onClick={reconnect}>
            Try again
          </button>
        </p>
      )}
      <p role="status" className="unseen">
        {said}
      </p>
      <ul className="jobs">
        {[...jobs].map(([id, job]) => (
          <li key={id}>
            <button type="button" aria-pressed={id === shown} onClick={() => choose(id)}>
              <span className="type">{nameOf(job)}</span>
              <Status status={job.status} />
            </button>
            {job.progress && !isTerminal(job.status) && <Bar name={nameOf(job)} progress={job.progress} />}
          </li>
        ))}
      </ul>
      {shown && <Detail key={shown} job={jobs.get(shown)!} />}
    </main>
  );
}

const nameOf = ({ job }: JobState) => names[job!.type] ?? job!.type;

/** The last end of a job that was seen to run, for screen readers. */
function useEnds(jobs: ReadonlyMap<string, JobState>): string {
  const before = useRef(new Map<string, JobStatus | null>());
  const [said, say] = useState('');
  useEffect(() => {
    for (const [id, job] of jobs) {
      if (isTerminal(job.status) && before.current.has(id) && !isTerminal(before.current.get(id))) say(`${nameOf(job)}: ${job.status}`);
    }
    before.current = new Map([...jobs].map(([id, { status }]) => [id, status]));
  }, [jobs]);
  return said;
}

function Detail({ job }: { job: JobState }) {
  const { progress, status, items, currentItem, error } = job;
  const name = nameOf(job);
  return (
    <section aria-label={name}>
      <h2>{name}</h2>
      <p>
        <Status status={status} /> {progress?.message}
      </p>
      {progress && progress.total > 0 && (
        <>
          <Bar name={name} progress={progress} />
          <p>
            {progress.done} of {progress.total}
            {progress.failed > 0 && `, ${progress.failed} failed`}
          </p>
        </>
      )}
      {error && <p role="alert">{error}</p>}
      {currentItem && <p className="current">{currentItem.label ?? currentItem.itemId}</p>}
      <ul className="items">
        {[...items.values()].reverse().map((item) => (
          <ItemRow key={item.itemId} item={item} />
        ))}
      </ul>
    </section>
  );
}

const ItemRow = ({ item }: { item: Item }) => <li data-status={item.status}>{item.label ?? item.itemId}</li>;

const Status = ({ status }: { status: JobStatus | null }) => (
  <span className="status" data-status={status}>
    {status}
  </span>
);

const connections: Record<string, string> = {
  open: 'live',
  connecting: 'connecting …',
  reconnecting: 'reconnecting …',
  polling: 'no live stream, asking every few seconds',
  degraded: 'database out of reach',
};

const Connection = ({ state }: { state: string }) => (connections[state] ? <span className="connection">{connections[state]}</span> : null);

function Bar({ name, progress: { done, total, failed } }: { name: string; progress: Progress }) {
  const share = (n: number) => `${total > 0 ? Math.min(100, (100 * n) / total) : 0}%`;
  return (
    <span
      className="bar"
      role="progressbar"
      aria-label={name}
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={done}
      aria-valuetext={`${done} of ${total}`}
    >
      <span className="succeeded" style={{ width: share(Math.max(0, done - failed)) }} />
      <span className="failed" style={{ width: share(failed) }} />
    </span>
  );
}
