-- Attaches jobprogress to a job table. One transaction; can be run again at any time, also to move to another table.
--
--   psql -v ON_ERROR_STOP=1 -f install.sql
--
-- Settings of the session steer it (PGOPTIONS="-c jobprogress.job_table=app.job" psql …, or set … before \i):
--   jobprogress.job_table         the job table, schema-qualified or found by search_path; default job
--   jobprogress.service_role  may call jobprogress.snapshot: the role the service connects as
--   jobprogress.worker_role   may call jobprogress.item: the role the workers connect as
--   jobprogress.gate          off: notify every change, also those that no server of ours watches; default on
begin;

-- A lock request that waits makes every writer wait behind it: rather give up and be run again.
set local lock_timeout = '5s';
set local client_min_messages = warning;

do $$
begin
  perform pg_advisory_xact_lock(hashtext('jobprogress.install'));
end $$;

do $$
begin
  perform set_config('jobprogress.fresh', (to_regnamespace('jobprogress') is null)::text, true);
end $$;

create schema if not exists jobprogress;

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

comment on schema jobprogress is 'Shows the progress of jobs in the browser: a trigger and a helper that notify channel "jobprogress".';

-- What is published of a row, for notices and snapshots alike. A count that is no count, a moment that JSON can't
-- write and an endless text must neither stop a writer nor spoil a read of many rows.
do $$
begin
  if exists (select from pg_proc where oid = to_regprocedure('jobprogress.counts(jsonb)') and prorettype <> 'text'::regtype) then
    drop function jobprogress.counts(jsonb); -- an earlier version returned another type
  end if;
end $$;

create or replace function jobprogress.counts(progress jsonb)
returns text
language sql immutable
as $$
  select '{"done":' || coalesce((progress -> 'done')::text, 'null')
    || ',"total":' || coalesce((progress -> 'total')::text, 'null')
    || ',"succeeded":' || coalesce((progress -> 'succeeded')::text, 'null')
    || ',"failed":' || coalesce((progress -> 'failed')::text, 'null') || '}'
$$;

create or replace function jobprogress.cut(value text, characters integer)
returns text
language sql immutable
as $$
  select case when length(value) > characters then left(value, characters - 3) || '...' else value end
$$;

create or replace function jobprogress.moment(value timestamptz)
returns timestamptz
language sql immutable
as $$
  select case when value >= '0001-01-02 00:00:00+00' and value < '9999-12-31 00:00:00+00' then value end
$$;

-- Whoever may connect may notify. What our functions notify is sealed with a key that only they read, and the
-- service through snapshot.
create table if not exists jobprogress.secret (
  key bytea not null
);

comment on table jobprogress.secret is 'The key that seals notices. One row; never to be granted to anybody.';

insert into jobprogress.secret (key)
select sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
where not exists (select from jobprogress.secret);

-- The backend is part of what is sealed: a notice that somebody heard and sends again comes from another one. Without
-- a key, in a copy of the schema for example, the body stays as it is, which makes it a hint to look at the row.
create or replace function jobprogress.seal(body text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  key bytea;
begin
  select secret.key into key from jobprogress.secret;
  if key is null then
    return body;
  end if;
  return '{"seal":"'
    || left(encode(sha256(key || sha256(key || convert_to(pg_backend_pid() || body, 'UTF8'))), 'hex'), 32)
    || '",' || substr(body, 2);
end $$;

comment on function jobprogress.seal(text) is 'Seals the body of a notice, a JSON object, so that the service knows whom it comes from.';

-- The gate. NOTIFY has commits wait for one another, so nothing is notified that nobody watches. For each bucket of jobs
-- (the last byte of the id) that somebody watches, a server of ours holds shared advisory locks: of class 1785684592 for
-- rows, 1785684593 for items. Whoever writes tries the exclusive one and gives it back at once: who gets it says nothing,
-- for no server has it. What transactions kept to themselves that were under way when a server took its lock, the server
-- finds by itself. Nobody waits for anybody, and writers hold nothing. Items are asked for here, rows by the trigger.
create or replace function jobprogress.unwatched(job_id uuid)
returns boolean
language sql volatile
as $$
  select case when pg_catalog.pg_try_advisory_lock(1785684593, pg_catalog.get_byte(pg_catalog.uuid_send(job_id), 15))
    then pg_catalog.pg_advisory_unlock(1785684593, pg_catalog.get_byte(pg_catalog.uuid_send(job_id), 15))
    else false
  end
$$;

-- Notifies what the row is now, with the transaction's id: the service knows by that which reads include it already.
-- Of several notices of one transaction only the last is a state that commits; they come together, and the service
-- waits for the last.
create or replace function jobprogress.notify_job()
returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  payload text;
begin
  if current_setting('jobprogress.notify', true) = 'off' then
    return null;
  end if;
  if tg_op = 'UPDATE' and new.id = old.id then
    -- As text, which every type can be compared as in this search_path.
    if old.status::text is not distinct from new.status::text
      and old.account_id::text is not distinct from new.account_id::text
      and old.progress is not distinct from new.progress
      and old.error::text is not distinct from new.error::text
    then
      return null;
    end if;
    -- "at" also keeps PostgreSQL from folding equal notices of one transaction into the first of them.
    payload := json_build_object(
      'kind', 'state',
      'job', new.id,
      'xid', pg_current_xact_id()::text,
      'at', (extract(epoch from clock_timestamp()) * 1000000)::bigint,
      'account', new.account_id::text,
      'status', left(new.status::text, 64),
      'progress', jobprogress.counts(new.progress)::json,
      'error', jobprogress.cut(new.error::text, 1000)
    )::text;
    payload := jobprogress.seal(payload);
    -- More than NOTIFY takes, 7,999 bytes, would abort the writer: look at the row.
    if octet_length(payload) > 7900 then
      payload := json_build_object('kind', 'row', 'job', new.id)::text;
    end if;
    perform pg_notify('jobprogress', payload);
    return null;
  end if;
  perform pg_notify('jobprogress', json_build_object('kind', 'row', 'job', old.id)::text);
  if tg_op = 'UPDATE' then
    perform pg_notify('jobprogress', json_build_object('kind', 'row', 'job', new.id)::text);
  end if;
  return null;
exception when others then
  -- The writer's update matters more than our notice: the service finds the row on its slow cycle.
  raise warning 'jobprogress: no notice for job %: % (%)', old.id, sqlerrm, sqlstate;
  return null;
end $$;

comment on function jobprogress.notify_job() is
  'Trigger: notifies the state of the changed job on channel "jobprogress". set jobprogress.notify = off silences it.';

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
  payload text;
begin
  if job_id is null or item_id is null or item_kind is null then
    raise exception 'jobprogress.item: job_id, item_id and item_kind must not be null'
      using errcode = 'null_value_not_allowed';
  end if;
  if status is null or status not in ('queued', 'in_progress', 'succeeded', 'failed') then
    raise exception 'jobprogress.item: status is "%", must be queued, in_progress, succeeded or failed', status
      using errcode = 'invalid_parameter_value';
  end if;
  if current_setting('jobprogress.notify', true) = 'off' then
    return;
  end if;

  begin
    if jobprogress.unwatched(job_id) then
      return;
    end if;
    -- "at" also keeps PostgreSQL from folding equal notices of one transaction into the first of them.
    payload := json_strip_nulls(json_build_object(
      'kind', 'item',
      'job', job_id,
      'at', (extract(epoch from clock_timestamp()) * 1000000)::bigint,
      'item', json_build_object(
        'itemId', item_id,
        'itemKind', item_kind,
        'status', status,
        'label', case when length(label) > 200 then left(label, 197) || '...' else label end,
        'index', index,
        'count', count,
        'total', total
      )
    ))::text;
    payload := jobprogress.seal(payload);
    if octet_length(payload) > 7900 then
      raise warning 'jobprogress.item: no notice for job %: item_id and item_kind take more than a notice holds', job_id;
      return;
    end if;
    perform pg_notify('jobprogress', payload);
  exception when others then
    raise warning 'jobprogress.item: no notice for job %: % (%)', job_id, sqlerrm, sqlstate;
  end;
end $$;

comment on function jobprogress.item(uuid, text, text, text, text, bigint, bigint, bigint) is
  'Tells the viewers of a job the status of one of its items: queued, in_progress, succeeded or failed.';

-- The table may be any table of the right columns, so what names it is built here.
do $install$
declare
  table_name text     := coalesce(nullif(current_setting('jobprogress.job_table', true), ''), 'job');
  job_table  regclass := to_regclass(table_name);
  full_name  text;
  missing    text;
  attached   record;
  snapshot   text;
  callers    text[];
  caller     text;
  gate       text     := coalesce(nullif(current_setting('jobprogress.gate', true), ''), 'on');
  watched    text;
begin
  if gate not in ('on', 'off') then
    raise exception 'jobprogress: jobprogress.gate is "%", must be on or off', gate;
  end if;
  if gate = 'on' and not (
    has_function_privilege('public', 'pg_catalog.pg_try_advisory_lock(integer, integer)', 'execute')
    and has_function_privilege('public', 'pg_catalog.pg_advisory_unlock(integer, integer)', 'execute')
  ) then
    raise exception 'jobprogress: not everybody who writes may call pg_try_advisory_lock and pg_advisory_unlock (integer, integer)'
      using hint = 'The trigger asks with them who watches: grant execute on both to public, or install with the gate off.';
  end if;
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

  -- Qualified, because the function looks nowhere but in pg_catalog.
  select format('%I.%I', nspname, relname) into full_name
  from pg_class join pg_namespace on pg_namespace.oid = relnamespace
  where pg_class.oid = job_table;

  -- row_security = off makes an error of rows that are hidden later on; viewers must not take them for deleted.
  snapshot := format($create$
    create or replace function jobprogress.snapshot(job_ids uuid[])
    returns table (
      id           uuid,
      visible      text,
      found        boolean,
      account_id   text,
      type         text,
      status       text,
      progress     text,
      error        text,
      created_at   timestamptz,
      started_at   timestamptz,
      completed_at timestamptz,
      updated_at   timestamptz,
      seal_key     bytea
    )
    language sql stable security definer rows 100
    set search_path = pg_catalog, pg_temp
    set row_security = off
    as $snapshot$
      select
        wanted.id,
        pg_current_snapshot()::text,
        job.id is not null,
        job.account_id::text,
        job.type::text,
        left(job.status::text, 64),
        jobprogress.counts(job.progress),
        jobprogress.cut(job.error::text, 1000),
        jobprogress.moment(job.created_at),
        jobprogress.moment(job.started_at),
        jobprogress.moment(job.completed_at),
        jobprogress.moment(job.updated_at),
        case when wanted.id is null then (select secret.key from jobprogress.secret) end
      from unnest(job_ids) as wanted (id)
      left join %s as job on job.id = wanted.id
    $snapshot$
  $create$, full_name);
  begin
    execute snapshot;
  exception when invalid_function_definition then
    -- An earlier version has other columns. Who may call it stays.
    select array_agg(quote_ident(pg_get_userbyid(a.grantee))) into callers
    from pg_proc as p, aclexplode(p.proacl) as a
    where p.oid = 'jobprogress.snapshot(uuid[])'::regprocedure and a.grantee not in (0, p.proowner);
    drop function jobprogress.snapshot(uuid[]);
    execute snapshot;
    for caller in
      select quote_ident(pg_get_userbyid(a.grantee))
      from pg_proc as p, aclexplode(p.proacl) as a
      where p.oid = 'jobprogress.snapshot(uuid[])'::regprocedure and a.grantee not in (0, p.proowner)
    loop
      execute format('revoke all on function jobprogress.snapshot(uuid[]) from %s', caller); -- default privileges
    end loop;
    foreach caller in array coalesce(callers, '{}') loop
      execute format('grant execute on function jobprogress.snapshot(uuid[]) to %s', caller);
    end loop;
  end;

  if exists (
    select from pg_trigger
    where tgrelid = job_table and tgname = 'jobprogress' and tgfoid <> 'jobprogress.notify_job'::regproc
  ) then
    raise exception 'jobprogress: table % has a trigger jobprogress that is not ours', job_table
      using hint = 'Rename it: alter trigger jobprogress on … rename to ….';
  end if;
  for attached in
    select tgname, tgrelid::regclass as on_table from pg_trigger
    where tgfoid = to_regproc('jobprogress.notify_job')
      and tgparentid = 0
      and (tgrelid <> job_table or tgname <> 'jobprogress')
  loop
    execute format('drop trigger %I on %s', attached.tgname, attached.on_table);
  end loop;

  if gate = 'off' then
    create or replace function jobprogress.unwatched(job_id uuid)
    returns boolean
    language sql volatile
    as 'select false';
  end if;

  -- The same is asked of rows in WHEN, at the update itself, before anything is read, compared, queued or built; and in
  -- as few words as can be, in one trigger, for they are copied and parsed anew for each statement: with AND, which
  -- PostgreSQL evaluates from left to right, though it does not promise to. The other way round everything would be
  -- notified. By the old id: a job that gets another one is watched under that, if at all.
  watched := case gate
    when 'on' then 'not (pg_catalog.pg_try_advisory_lock(1785684592, pg_catalog.get_byte(pg_catalog.uuid_send(old.id), 15))
      and pg_catalog.pg_advisory_unlock(1785684592, pg_catalog.get_byte(pg_catalog.uuid_send(old.id), 15)))'
    else 'true'
  end;

  execute format($create$
    create or replace trigger jobprogress
    after update or delete on %s
    for each row
    when (%s)
    execute function jobprogress.notify_job()
  $create$, job_table, watched);
end $install$;

comment on function jobprogress.snapshot(uuid[]) is
  'The published state of the jobs named, one row each also where there is none, and the transactions it includes (pg_current_snapshot). For the job null: the key that seals notices.';

-- Nobody but the owner may call anything here: functions come granted to all, and default privileges may grant them to
-- others. What was granted since the first install stays.
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
      and (a.grantee = 0 or current_setting('jobprogress.fresh') = 'true')
  loop
    execute format('revoke all on function %s from %s', granted.function_name, granted.grantee);
  end loop;
  for granted in
    select case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee
    from pg_class as c, aclexplode(c.relacl) as a
    where c.oid = 'jobprogress.secret'::regclass and a.grantee <> c.relowner
  loop
    execute format('revoke all on table jobprogress.secret from %s', granted.grantee);
  end loop;
end $$;

do $install$
declare
  service_role text := nullif(current_setting('jobprogress.service_role', true), '');
  worker_role  text := nullif(current_setting('jobprogress.worker_role', true), '');
begin
  if service_role is not null then
    execute format('grant usage on schema jobprogress to %I', service_role);
    execute format('grant execute on function jobprogress.snapshot(uuid[]) to %I', service_role);
  end if;
  if worker_role is not null then
    execute format('grant usage on schema jobprogress to %I', worker_role);
    execute format('grant execute on function jobprogress.item(uuid, text, text, text, text, bigint, bigint, bigint) to %I', worker_role);
  end if;
end $install$;

commit;
