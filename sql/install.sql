-- Attaches jobprogress to a job table. One transaction (and one that cleans up); can be run again at any time, also to move to another table.
--
--   psql -v ON_ERROR_STOP=1 -f install.sql
--
-- Settings of the session steer it (PGOPTIONS="-c jobprogress.job_table=app.job" psql ..., or set ... before \i).
-- What is not set stays as it was:
--   jobprogress.job_table     the job table, schema-qualified or found by search_path; at first job
--   jobprogress.gate          off: notify every change, watched or not; at first on
--   jobprogress.service_role  may read the published state of jobs: the role the server connects as
--   jobprogress.worker_role   may call jobprogress.item: the role the workers connect as
--
-- ASCII only: the file must load into a database of any encoding.
begin;

-- A lock request that waits makes every writer wait behind it: rather give up and be run again.
set local lock_timeout = '5s';
set local client_min_messages = warning;
set local check_function_bodies = off; -- functions name others that come later

do $$
begin
  perform pg_advisory_xact_lock(hashtext('jobprogress.install'));
  perform set_config('jobprogress.known', coalesce((
    select array_agg(oid) from pg_proc where pronamespace = to_regnamespace('jobprogress')
  ), '{}')::text, true);
end $$;

-- Our functions run with the rights of their owner, over a table whose owner can rename it and put a view in its place. So
-- a superuser hands everything to the owner of the table, unless that one may not see all rows; and installs again as
-- the owner of what is there.
do $$
declare
  owner name;
begin
  select pg_get_userbyid(nspowner) into owner from pg_namespace where nspname = 'jobprogress';
  if owner is null then
    select pg_get_userbyid(relowner) into owner from pg_class
    where oid = to_regclass(coalesce(nullif(current_setting('jobprogress.job_table', true), ''), 'job'))
      and not relforcerowsecurity;
  end if;
  if owner is null or owner = current_user or not (select rolsuper from pg_roles where rolname = current_user) then
    owner := current_user;
  end if;
  execute format('create schema if not exists jobprogress authorization %I', owner);
  execute format('set local role %I', owner);
end $$;

-- Functions of the schema run with the rights of their owner. Nobody else may have put them there.
do $$
declare
  installer oid := (select oid from pg_roles where rolname = current_user);
begin
  if exists (
    select from pg_namespace where nspname = 'jobprogress' and nspowner <> installer
    union all
    select from pg_proc where pronamespace = 'jobprogress'::regnamespace and proowner <> installer
    union all
    select from pg_class where relnamespace = 'jobprogress'::regnamespace and relowner <> installer
  ) then
    raise exception 'jobprogress: schema jobprogress or something in it is not owned by %', current_user
      using hint = 'Install as the role that installed it first, or uninstall it as that role.';
  end if;
end $$;

comment on schema jobprogress is
  'Shows the progress of jobs in the browser: triggers and a helper that notify channel "jobprogress".';

drop function if exists jobprogress.seal(text);
drop function if exists jobprogress.unwatched(uuid);
drop function if exists jobprogress.counts(jsonb);

-- What workers say of items. It is append-only: to update a row would have workers wait for one another. The newest row
-- of an item counts. Unlogged: its rows are not worth a flush, and no replica or publication gets them.
--
-- Made only if it is missing: "create index if not exists" would lock it all the same, and deadlock with writers that
-- have written a job and now tell of an item.
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
  'What jobprogress.item was told, for as long as a server may show it. Servers delete what is out of date.';

-- The gate. NOTIFY makes commits wait for one another, so nothing is notified that nobody watches. For each bucket of
-- jobs (the last byte of the id) that its viewers watch, a server holds a shared advisory lock of class 1785684592; and
-- number 256 of it as long as it serves this database. A writer tries the exclusive lock and gives it back at once: who
-- gets it has found no server. Nobody ever waits for such a lock.
create or replace function jobprogress.unwatched(bucket integer)
returns boolean
language sql volatile
as $$
  select case when pg_catalog.pg_try_advisory_lock(1785684592, bucket)
    then pg_catalog.pg_advisory_unlock(1785684592, bucket)
    else false
  end
$$;

comment on function jobprogress.unwatched(integer) is 'Reports whether no server watches any job of the bucket.';

-- A notification says look: it holds the id and no state. The function has no EXCEPTION block, which would keep
-- kilobytes for each row until the transaction ends; and it compares nothing, which may read megabytes out of line.
-- It runs with the search_path of the writer, so every name is qualified. The assignments are cheaper than PERFORM.
create or replace function jobprogress.notify_job()
returns trigger
language plpgsql
as $$
declare
  nothing pg_catalog.text;
begin
  if pg_catalog.current_setting('jobprogress.notify', true) operator(pg_catalog.=) 'off' then
    return null;
  end if;
  if tg_op operator(pg_catalog.<>) 'DELETE' then
    nothing := pg_catalog.pg_notify('jobprogress', new.id::pg_catalog.text);
    if tg_op operator(pg_catalog.=) 'INSERT' or new.id operator(pg_catalog.=) old.id then
      return null;
    end if;
  end if;
  nothing := pg_catalog.pg_notify('jobprogress', old.id::pg_catalog.text);
  return null;
end $$;

comment on function jobprogress.notify_job() is
  'Trigger: notifies the id of the changed job on channel "jobprogress". set jobprogress.notify = off silences it.';

create or replace function jobprogress.item(
  job_id    uuid,
  item_id   text,
  item_kind text,
  status    text,
  label     text default null,
  index     bigint default null,
  count     bigint default null,
  total     bigint default null
)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  run     text;
  nothing text;
begin
  if job_id is null or item_id is null or item_kind is null then
    raise exception 'jobprogress.item: job_id, item_id and item_kind must not be null'
      using errcode = 'null_value_not_allowed';
  end if;
  if status is null or status not in ('queued', 'in_progress', 'succeeded', 'failed') then
    raise exception 'jobprogress.item: status is "%", must be queued, in_progress, succeeded or failed', status
      using errcode = 'invalid_parameter_value';
  end if;
  if length(item_id) > 1000 or length(item_kind) > 1000 then
    raise warning 'jobprogress.item: an item of job % is not kept: item_id or item_kind has more than 1,000 characters', job_id;
    return;
  end if;
  if current_setting('transaction_read_only') = 'on' then
    raise warning 'jobprogress.item: an item of job % is not kept: the transaction is read-only', job_id;
    return;
  end if;
  if to_regclass('jobprogress.item_log') is null then
    raise warning 'jobprogress.item: an item of job % is not kept: table jobprogress.item_log is missing', job_id;
    return;
  end if;

  if jobprogress.unwatched(256) and not jobprogress.has_items(job_id::text) then
    return; -- no server is there that would show it or delete it, and none has just been there
  end if;

  -- Not in a serializable transaction, to whose conflicts the read would add. The block takes no transaction id, because
  -- nothing is written in it.
  if current_setting('transaction_isolation') <> 'serializable' then
    begin
      run := jobprogress.run_of(job_id::text);
    exception when others then
      raise warning 'jobprogress.item: the run of job % is unknown: % (%)', job_id, sqlerrm, sqlstate;
    end;
  end if;

  insert into jobprogress.item_log (job, run, item, kind, status, label, index, count, total, xid)
  values (job_id::text, run, item_id, item_kind, status, jobprogress.cut(label, 200), index, count, total, pg_current_xact_id());

  if not jobprogress.unwatched(get_byte(uuid_send(job_id), 15))
    and current_setting('jobprogress.notify', true) is distinct from 'off'
  then
    nothing := pg_notify('jobprogress', job_id::text);
  end if;
end $$;

comment on function jobprogress.item(uuid, text, text, text, text, bigint, bigint, bigint) is
  'Keeps the latest status of an item of a job for its viewers: queued, in_progress, succeeded or failed.';

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

-- The items of a job's run that a snapshot did not see, or all of them without one: the newest row of each, as a JSON
-- array in the order in which they were told; at most 256, finished ones forgotten first. What was said of a job not
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
  jobs text[];
begin
  jobs := array(select distinct log.job from jobprogress.item_log as log where log.job > after order by log.job limit 100);
  if cardinality(jobs) = 100 then
    next := jobs[100];
  end if;
  delete from jobprogress.item_log as entry
  where entry.job = any (jobs) and not exists (
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

-- What names the table is built here. In functions with text bodies, not in a view, which would stand in the way of the
-- application's alter table.
do $install$
declare
  earlier    jsonb;
  table_name text := nullif(current_setting('jobprogress.job_table', true), '');
  gate       text := nullif(current_setting('jobprogress.gate', true), '');
  job_table  regclass;
  full_name  text;
  missing    text;
  tables     regclass[];
  enabled    jsonb;
  attached   record;
begin
  if to_regproc('jobprogress.attachment') is not null then
    execute 'select jobprogress.attachment()' into earlier;
  elsif table_name is null then -- of version 1
    select format('%I.%I', nspname, relname) into table_name
    from pg_trigger join pg_class on pg_class.oid = tgrelid join pg_namespace on pg_namespace.oid = relnamespace
    where tgfoid = 'jobprogress.notify_job'::regproc and tgparentid = 0;
  end if;
  table_name := coalesce(table_name, earlier ->> 'table', 'job');
  gate := coalesce(gate, earlier ->> 'gate', 'on');
  if gate not in ('on', 'off') then
    raise exception 'jobprogress: jobprogress.gate is "%", must be on or off', gate;
  end if;
  select string_agg(needed::regprocedure::text, ', ') into missing
  from unnest(array['pg_notify(text, text)', 'current_setting(text, boolean)', 'pg_try_advisory_lock(integer, integer)',
    'pg_advisory_unlock(integer, integer)']) with ordinality as f (needed, place)
  where not has_function_privilege('public', 'pg_catalog.' || needed, 'execute') and (gate = 'on' or place < 3);
  if missing is not null then
    raise exception 'jobprogress: not everybody who writes may call %', missing
      using hint = 'The trigger calls it with the rights of the writer: grant execute to public. The lock functions are not needed with the gate off.';
  end if;

  job_table := to_regclass(table_name);
  if job_table is null then
    raise exception 'jobprogress: table "%" does not exist', table_name
      using hint = 'Name the job table: set jobprogress.job_table = ''schema.table'', or jobprogress install --table.';
  end if;
  select string_agg(wanted.name, ', ' order by wanted.name) into missing
  from unnest(array['id', 'account_id', 'type', 'status', 'progress', 'error',
                    'created_at', 'started_at', 'completed_at', 'updated_at']) as wanted (name)
  where not exists (
    select from pg_attribute
    where attrelid = job_table and attname = wanted.name and attnum > 0 and not attisdropped
  );
  if missing is not null then
    raise exception 'jobprogress: table % has no column %', job_table, missing;
  end if;
  if not exists (select from pg_attribute where attrelid = job_table and attname = 'id' and atttypid = 'uuid'::regtype) then
    raise exception 'jobprogress: column id of table % is no uuid', job_table;
  end if;
  if row_security_active(job_table) then
    raise exception 'jobprogress: row-level security hides rows of % from role %', job_table, current_user
      using hint = 'Install as the owner of the table or as a role with BYPASSRLS: jobprogress.snapshot reads with the rights of the role that installs it.';
  end if;

  -- Qualified, because our functions look nowhere but in pg_catalog.
  select format('%I.%I', nspname, relname) into full_name
  from pg_class join pg_namespace on pg_namespace.oid = relnamespace
  where pg_class.oid = job_table;

  execute format($create$
    create or replace function jobprogress.published(job_ids text[])
    returns table (
      id           text,
      owner        text,
      type         text,
      status       text,
      progress     jsonb,
      error        text,
      created_at   timestamptz,
      started_at   timestamptz,
      completed_at timestamptz,
      updated_at   timestamptz,
      run          text
    )
    language sql stable rows 100
    as $published$
      select
        job.id::text,
        job.account_id::text,
        job.type::text,
        job.status::text,
        job.progress::jsonb,
        job.error::text,
        job.created_at::timestamptz,
        job.started_at::timestamptz,
        job.completed_at::timestamptz,
        job.updated_at::timestamptz,
        coalesce(extract(epoch from job.started_at)::text, '')
      from %1$s as job
      where job.id = any ($1::uuid[])
      offset 0 -- so that each expression is evaluated once
    $published$
  $create$, full_name);

  execute format($create$
    create or replace function jobprogress.run_of(job_id text)
    returns text
    language plpgsql stable
    as $run_of$
    declare
      run text;
    begin
      -- into costs half of what return of a query does
      select coalesce(extract(epoch from job.started_at)::text, '') into run from %1$s as job where job.id = $1::uuid;
      return run;
    end $run_of$
  $create$, full_name);

  execute format($create$
    create or replace function jobprogress.any_job()
    returns text
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
    set row_security = off
    as 'select job.id::text from %1$s as job limit 1'
  $create$, full_name);

  execute format($create$
    create or replace function jobprogress.attachment()
    returns jsonb
    language sql immutable
    as $attachment$ select %L::jsonb $attachment$
  $create$, jsonb_build_object('version', 2, 'table', full_name, 'gate', gate));

  if gate = 'off' then
    create or replace function jobprogress.unwatched(bucket integer)
    returns boolean
    language sql volatile
    as 'select bucket = 256 and case when pg_catalog.pg_try_advisory_lock(1785684592, 256)
      then pg_catalog.pg_advisory_unlock(1785684592, 256) else false end';
  end if;

  if exists (
    select from pg_trigger
    where tgrelid = job_table and tgname in ('jobprogress', 'jobprogress_insert')
      and tgfoid <> 'jobprogress.notify_job'::regproc
  ) then
    raise exception 'jobprogress: table % has a trigger jobprogress that is not ours', job_table
      using hint = 'Rename it: alter trigger jobprogress on ... rename to ....';
  end if;

  -- The triggers of a partitioned table are also those of its partitions; children that inherit get their own.
  with recursive heirs as (
    select job_table::oid as child
    union
    select inhrelid from pg_inherits join heirs on inhparent = child
    join pg_class on pg_class.oid = inhrelid and not relispartition
  )
  select array_agg(child::regclass) into tables from heirs;

  select coalesce(jsonb_object_agg(tgrelid::text || tgname, tgenabled), '{}') into enabled
  from pg_trigger
  where tgfoid = 'jobprogress.notify_job'::regproc and tgenabled in ('A', 'R');

  for attached in
    select tgname, tgrelid::regclass as on_table from pg_trigger
    where tgfoid = 'jobprogress.notify_job'::regproc
      and tgparentid = 0
      and (tgrelid <> all (tables) or tgname not in ('jobprogress', 'jobprogress_insert'))
  loop
    execute format('drop trigger %I on %s', attached.tgname, attached.on_table);
  end loop;

  -- The gate is asked in WHEN, before an event is queued or a function called, and in as few words as can be, for
  -- PostgreSQL copies and parses them for each statement. It evaluates AND from left to right, though it does not
  -- promise to; the other way round everything would be notified.
  for attached in
    select
      on_table,
      one.name,
      one.events,
      case gate
        when 'on' then format(
          'when (not (pg_catalog.pg_try_advisory_lock(1785684592, pg_catalog.get_byte(pg_catalog.uuid_send(%1$s.id), 15))
          and pg_catalog.pg_advisory_unlock(1785684592, pg_catalog.get_byte(pg_catalog.uuid_send(%1$s.id), 15))))', one.tuple)
        else ''
      end as condition,
      case enabled ->> (on_table::oid::text || one.name) when 'A' then 'always' when 'R' then 'replica' end as enable
    from unnest(tables) as on_table,
      (values ('jobprogress', 'update or delete', 'old'), ('jobprogress_insert', 'insert', 'new')) as one (name, events, tuple)
  loop
    execute format('create or replace trigger %I after %s on %s for each row %s execute function jobprogress.notify_job()',
      attached.name, attached.events, attached.on_table, attached.condition);
    if attached.enable is not null then
      execute format('alter table %s enable %s trigger %I', attached.on_table, attached.enable, attached.name);
    end if;
  end loop;

  -- Who may dump the job table may dump our table, else a dump of the database would fail because of us.
  for attached in
    select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee
    from pg_class as c, aclexplode(c.relacl) as a
    where c.oid = job_table and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
  loop
    execute format('grant usage on schema jobprogress to %s', attached.grantee);
    execute format('grant select on jobprogress.item_log, jobprogress.item_log_seq_seq to %s', attached.grantee);
  end loop;
  perform set_config('lock_timeout', '500ms', true); -- less than a deadlock takes to be found
  for attached in -- only if it changes, for it locks the table
    select case when a.relrowsecurity then 'enable' else 'disable' end as what
    from pg_class as a, pg_class as b
    where a.oid = job_table and b.oid = 'jobprogress.item_log'::regclass and a.relrowsecurity <> b.relrowsecurity
  loop
    execute format('alter table jobprogress.item_log %s row level security', attached.what);
  end loop;
end $install$;

comment on function jobprogress.attachment() is 'What is attached, and the version of what is installed here.';
comment on function jobprogress.published(text[]) is 'What is published of the jobs named, of those that there are.';

-- Nobody but the owner may call anything here: new functions come granted to all, and default privileges may grant them
-- to others. What somebody granted since they came stays.
do $$
declare
  granted record;
begin
  for granted in
    select
      p.oid::regprocedure as function_name,
      case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee
    from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
    where p.pronamespace = 'jobprogress'::regnamespace
      and a.grantee <> p.proowner
      and (a.grantee = 0 or p.oid <> all (current_setting('jobprogress.known')::oid[]))
  loop
    execute format('revoke all on function %s from %s', granted.function_name, granted.grantee);
  end loop;
end $$;

-- A server of version 1 calls this, and logs what it is answered.
do $$
declare
  stub text := $create$
    create or replace function jobprogress.snapshot(job_ids uuid[])
    returns table (id uuid, visible text, found boolean, account_id text, type text, status text, progress text, error text,
      created_at timestamptz, started_at timestamptz, completed_at timestamptz, updated_at timestamptz, seal_key bytea)
    language plpgsql
    as $stub$
    begin
      raise exception 'this jobprogress server is older than what is installed in the database (version 2): upgrade the server';
    end $stub$
  $create$;
  caller record;
begin
  if to_regprocedure('jobprogress.snapshot(uuid[])') is null then
    return;
  end if;
  for caller in
    select quote_ident(pg_get_userbyid(a.grantee)) as name
    from pg_proc as p, aclexplode(p.proacl) as a
    where p.oid = 'jobprogress.snapshot(uuid[])'::regprocedure and a.grantee not in (0, p.proowner)
  loop
    execute format('grant execute on function jobprogress.snapshot(text[], text[], text[]), jobprogress.sweep(text),
      jobprogress.any_job(), jobprogress.attachment() to %s', caller.name);
  end loop;
  begin
    execute stub;
  exception when invalid_function_definition then
    drop function jobprogress.snapshot(uuid[]); -- of an earlier version still
  end;
end $$;

do $install$
declare
  service_role text := nullif(current_setting('jobprogress.service_role', true), '');
  worker_role  text := nullif(current_setting('jobprogress.worker_role', true), '');
begin
  if service_role is not null then
    execute format('grant usage on schema jobprogress to %I', service_role);
    execute format('grant execute on function jobprogress.snapshot(text[], text[], text[]), jobprogress.sweep(text),
      jobprogress.any_job(), jobprogress.attachment() to %I', service_role);
  end if;
  if worker_role is not null then
    execute format('grant usage on schema jobprogress to %I', worker_role);
    execute format('grant execute on function jobprogress.item(uuid, text, text, text, text, bigint, bigint, bigint) to %I', worker_role);
  end if;
end $install$;

commit;

-- What triggers and functions of version 1 read. They do so no more, and a transaction of theirs that is under way waits
-- for nothing of ours: so this waits for it, which above would be a deadlock.
begin;
set local lock_timeout = '5s';
set local client_min_messages = warning;
drop table if exists jobprogress.secret;
commit;
