-- What workers say of items. It is append-only: to update a row would have workers wait for one another. The newest row
-- of an item counts. Unlogged: its rows are not worth a flush, and no replica or publication gets them.
--
-- Made only if it is missing: "create index if not exists" would lock it all the same, and deadlock with writers that
-- have written a job and now report an item.
do $$
declare
  grantee text;
begin
  if to_regclass('jobprogress.item_log') is not null then
    return;
  end if;
  create unlogged table jobprogress.item_log (
    job    text collate "C" not null,
    run    text, -- of the job at that time; '': not started, null: unknown
    item   text not null,
    kind   text not null,
    status text not null,
    label  text,
    index  bigint,
    count  bigint,
    total  bigint,
    seq    bigint not null generated always as identity,
    xid    xid8 not null,
    at     timestamptz not null default now()
  ) with (vacuum_truncate = off); -- which would lock it
  create index item_log_job_xid on jobprogress.item_log (job, xid);
  for grantee in -- by default privileges
    select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
    from pg_class as c, aclexplode(c.relacl) as a
    where c.relnamespace = 'jobprogress'::regnamespace and a.grantee <> c.relowner
  loop
    execute format('revoke all on jobprogress.item_log, jobprogress.item_log_seq_seq from %s', grantee);
  end loop;
end $$;

comment on table jobprogress.item_log is
  'The statuses of items, for as long as a server may show them. Servers delete what is out of date.';

-- Reports whether items of the job are kept. Without statistics of a log that was empty a moment ago, PostgreSQL would
-- scan all of it.
create or replace function jobprogress.has_items(job_id text)
returns boolean
language plpgsql stable
set enable_seqscan = off
as $$
begin
  return exists (select from jobprogress.item_log where job = job_id);
end $$;

-- The items of a job's run that a snapshot did not see, or all of them without one: the newest row of each, as a JSON
-- array in the order in which they came; at most 256, finished ones forgotten first. What was said of a job not
-- started is its own unless it was said before the newest row of another run; that is looked up only if there are such rows.
create or replace function jobprogress.items_of(job_id text, present_run text, seen pg_snapshot)
returns text
language plpgsql stable
as $$
declare
  items text; -- into costs half of what return of a query does
begin
  select json_agg(json_build_object('itemId', item, 'itemKind', kind, 'status', status, 'label', label,
    'index', index, 'count', count, 'total', total, 'seq', seq) order by seq)
  into items
  from (
    select * from (
      select distinct on (item) *
      from jobprogress.item_log
      where job = job_id
        and (run is null or run = present_run or run = '' and seq > coalesce((
          select max(log.seq)
          from jobprogress.item_log as log
          where log.job = job_id and log.run <> present_run and log.run <> ''
        ), 0))
        and xid >= coalesce(pg_snapshot_xmin(seen), '0') -- the index finds these
        and pg_visible_in_snapshot(xid, seen) is not true
      order by item, seq desc
    ) as latest
    order by status in ('succeeded', 'failed'), seq desc
    limit 256
  ) as newest;
  return items;
end $$;

-- Deletes what no viewer will see any more, of a hundred jobs after the one named, and returns how many rows that were and
-- the last of these jobs, or null if it was the last of all. Kept are the newest row of an item in the job's present run,
-- the newest 256 items of a job, finished ones forgotten first, until an hour after its end. Of rows whose run is unknown the
-- newest is kept too: in the next run one that is older, and commits late, would take its place.
create or replace function jobprogress.sweep(after text default '', out next text, out deleted bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set row_security = off
set enable_seqscan = off
as $$
declare
  named text[] := array(select distinct log.job from jobprogress.item_log as log where log.job > after order by log.job limit 100);
  jobs  text[] := array(select job from unnest(named) as job where jobprogress.is_id(job)); -- not of a table attached before
begin
  if cardinality(named) = 100 then
    next := named[100];
  end if;
  delete from jobprogress.item_log as entry
  where entry.job = any (named) and not exists (
    select from (
      select
        latest.place,
        row_number() over (
          partition by latest.job, latest.age = 1
          order by latest.status in ('succeeded', 'failed'), latest.seq desc
        ) as rank
      from (
        select
          log.ctid as place,
          log.job,
          log.status,
          log.seq,
          row_number() over (partition by log.job, log.item order by log.seq desc) as age,
          log.run is null and row_number() over (partition by log.job, log.item, log.run is null order by log.seq desc) = 1 as newest_unknown,
          job.status in ('completed', 'failed')
            and coalesce(job.completed_at, max(log.at) over (partition by log.job)) < now() - interval '1 hour' as over
        from jobprogress.item_log as log
        join jobprogress.published(jobs) as job on job.id = log.job
        left join (
          select other.job, max(other.seq) filter (where other.run <> '' and other.run <> now_run.run) as seq
          from jobprogress.item_log as other
          join jobprogress.published(jobs) as now_run on now_run.id = other.job
          where other.job = any (jobs)
          group by other.job
        ) as earlier on earlier.job = log.job
        where log.job = any (jobs)
          and (log.run is null or log.run = job.run or log.run = '' and log.seq > coalesce(earlier.seq, 0))
      ) as latest
      where (latest.age = 1 or latest.newest_unknown) and latest.over is not true
    ) as kept
    where kept.place = entry.ctid and kept.rank <= 256
  );
  get diagnostics deleted = row_count;
end $$;

comment on function jobprogress.sweep(text) is 'Deletes from jobprogress.item_log what no viewer will see any more.';
