-- Cuts a text, at a character. octet_length does not read what is stored out of line, and left reads no more than it
-- returns.
create or replace function jobprogress.cut(value text, characters integer)
returns text
language sql immutable
as $$
  select case
    when octet_length(value) <= characters then value
    when length(left(value, characters + 1)) > characters then left(value, characters - 3) || '...'
    else value
  end
$$;

-- The moment, or null for one that JSON can't write.
create or replace function jobprogress.moment(value timestamptz)
returns timestamptz
language sql immutable
as $$
  select case when value >= '0001-01-02 00:00:00+00' and value < '9999-12-31 00:00:00+00' then value end
$$;

-- Reports whether the text is a UUID as PostgreSQL writes it.
create or replace function jobprogress.is_uuid(value text)
returns boolean
language sql immutable
as $$
  select value ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
$$;

-- Reports whether the text is a bigint as PostgreSQL writes it.
create or replace function jobprogress.is_bigint(value text)
returns boolean
language sql immutable
as $$
  select value ~ '^(0|-?[1-9][0-9]{0,18})$' and value::numeric between -9223372036854775808 and 9223372036854775807
$$;

-- Text as JSON, or null if it is none. What jsonb can't hold, a NUL or half a character, becomes a replacement character.
create or replace function jobprogress.json(value text)
returns jsonb
language plpgsql immutable
as $$
begin
  return value::jsonb;
exception when others then
  begin
    return regexp_replace(value, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\ufffd', 'g')::jsonb;
  exception when others then
    return null;
  end;
end $$;

-- The progress; some drivers write it as a string that holds it.
create or replace function jobprogress.progress_of(value jsonb)
returns jsonb
language sql immutable
as $$
  select case jsonb_typeof(value) when 'string' then jobprogress.json(value #>> '{}') else value end
$$;

-- The one read: what is published of the jobs, one row each also where there is none, and the snapshot it was read in.
-- With seen it also returns items: those that the snapshot named there did not see, or all of the job's present run if
-- it is '' or the run is not the one named in runs. row_security = off makes an error of rows that are hidden; viewers
-- must not take them for deleted.
create or replace function jobprogress.snapshot(job_ids text[], runs text[] default null, seen text[] default null)
returns table (
  snapshot     text,
  id           text,
  found        boolean,
  owner        text,
  type         text,
  status       text,
  done         text,
  total        text,
  succeeded    text,
  failed       text,
  message      text,
  error        text,
  created_at   timestamptz,
  started_at   timestamptz,
  completed_at timestamptz,
  updated_at   timestamptz,
  run          text,
  all_items    boolean,
  items        text
)
language plpgsql stable security definer rows 100
set search_path = pg_catalog, pg_temp
set row_security = off
set enable_seqscan = off -- as in has_items
set plan_cache_mode = force_generic_plan -- planned once in a session; to plan takes three times as long as to read
as $$
#variable_conflict use_column
begin
  return query
  select
    (select pg_current_snapshot()::text), -- once, not for each row
    wanted.id,
    job.id is not null,
    job.owner,
    job.type,
    left(job.status, 64),
    left((job.progress -> 'done')::text, 41),
    left((job.progress -> 'total')::text, 41),
    left((job.progress -> 'succeeded')::text, 41),
    left((job.progress -> 'failed')::text, 41),
    case jsonb_typeof(job.progress -> 'message') when 'string' then jobprogress.cut(job.progress ->> 'message', 200) end,
    jobprogress.cut(job.error, 1000),
    jobprogress.moment(job.created_at),
    jobprogress.moment(job.started_at),
    jobprogress.moment(job.completed_at),
    jobprogress.moment(job.updated_at),
    job.run,
    since.seen is null,
    case when wanted.seen is not null and job.id is not null and exists (
      select from jobprogress.item_log
      where job = wanted.id and xid >= case when since.seen is null then '0'::xid8 else pg_snapshot_xmin(since.seen) end
    ) then jobprogress.items_of(wanted.id, job.run, since.seen) end
  from unnest(job_ids, runs, seen) as wanted (id, run, seen)
  left join jobprogress.published(job_ids) as job on job.id = wanted.id
  cross join lateral (
    select case when wanted.run = coalesce(job.run, '') then nullif(wanted.seen, '')::pg_snapshot end as seen
  ) as since;
end $$;

comment on function jobprogress.snapshot(text[], text[], text[]) is
  'What is published of the jobs named, one row each also where there is none, and the snapshot in which it was read.';
