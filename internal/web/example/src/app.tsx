import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { isTerminal, jobQueryOptions, useJobProgress, type Item, type JobStatus, type Progress } from 'use-job-progress';

/** A job as the application lists it. */
export interface Listed {
  id: string;
  type: string;
  status: JobStatus;
  createdAt: string;
}

const names: Record<string, string> = {
  sync_liked_songs: 'Sync liked songs',
  sync_playlists: 'Sync playlists',
  song_analysis: 'Song analysis',
  playlist_analysis: 'Playlist analysis',
  matching: 'Matching',
};

export const jobsQuery = {
  queryKey: ['jobs'],
  queryFn: async (): Promise<Listed[]> => {
    await fetch('/session'); // signs the visitor in
    const response = await fetch('/jobs');
    if (!response.ok) throw new Error(`the list of jobs: ${response.status}`);
    return (await response.json()) ?? [];
  },
  refetchInterval: 2000,
};

export function App() {
  const { data: jobs = [], isPending, error } = useQuery(jobsQuery);
  const [chosen, choose] = useState<string | null>(null);
  const [said, say] = useState('');
  const shown = chosen ?? jobs[0]?.id ?? null;
  return (
    <main>
      <h1>Jobs</h1>
      {error && <p role="alert">{error.message}</p>}
      <p role="status" className="unseen">
        {said}
      </p>
      {isPending ? (
        <p>…</p>
      ) : (
        <ul className="jobs">
          {jobs.map((job) => (
            <li key={job.id}>
              <Row job={job} pressed={job.id === shown} choose={choose} say={say} />
            </li>
          ))}
        </ul>
      )}
      {shown && <Detail key={shown} id={shown} />}
    </main>
  );
}

/** Jobs that have ended need no stream: what the list says of them stays. A browser has six over HTTP/1.1. */
function Row({ job, pressed, choose, say }: { job: Listed; pressed: boolean; choose: (id: string) => void; say: (text: string) => void }) {
  const name = names[job.type] ?? job.type;
  const tell = ({ status }: { status: JobStatus | null }) => say(`${name}: ${status}`);
  const live = useJobProgress(isTerminal(job.status) ? null : job.id, { onComplete: tell, onFailed: tell });
  const status = live.status ?? job.status;
  return (
    <>
      <button aria-pressed={pressed} onClick={() => choose(job.id)}>
        <span className="type">{name}</span>
        <Status status={status} />
      </button>
      {live.progress && <Bar name={name} progress={live.progress} />}
    </>
  );
}

function Detail({ id }: { id: string }) {
  const { data: job } = useQuery(jobQueryOptions(id)); // progress and status stay live: the hook writes them here
  const { items, currentItem, error, connectionState, connectionError } = useJobProgress(id);
  if (!job) return connectionError && <p role="alert">{connectionError.message}</p>;
  const { progress } = job;
  const name = names[job.type] ?? job.type;
  return (
    <section aria-label={name}>
      <h2>{name}</h2>
      <p>
        <Status status={job.status} /> <Connection state={connectionState} />
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

const Status = ({ status }: { status: JobStatus }) => (
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
    <span className="bar" role="progressbar" aria-label={name} aria-valuemin={0} aria-valuemax={total} aria-valuenow={done} aria-valuetext={`${done} of ${total}`}>
      <span className="succeeded" style={{ width: share(done - failed) }} />
      <span className="failed" style={{ width: share(failed) }} />
    </span>
  );
}
