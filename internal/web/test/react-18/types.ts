// That the oldest TanStack Query finds the type of the data, too.
import { useQuery, type QueryClient } from '@tanstack/react-query';
import { jobQueryOptions } from 'use-job-progress';

export function useDone(id: string): number | undefined {
  const { data } = useQuery(jobQueryOptions(id));
  // @ts-expect-error: it is known what a job has
  void data?.nothing;
  return data?.progress.done;
}

export const fetchDone = async (client: QueryClient, id: string): Promise<number> => (await client.fetchQuery(jobQueryOptions(id))).progress.done;
