-- What names the table is written here. In functions with text bodies, not in a view, which would stand in the way of the
-- application's alter table.
do $$
declare
  mapping  jsonb := current_setting('jobprogress.mapping');
  id_type  text := current_setting('jobprogress.id_type');
  run      text := coalesce(mapping ->> 'run', mapping ->> 'started_at');
  run_type text;
  status   text;
  columns  jsonb;
  body     text;
begin
  -- Workers and servers must see the same text, whatever time zone and formats their sessions have.
  run_type := jobprogress.trial(format(e'select pg_typeof((\n%s\n))::text from (values (1)) as one left join %s as job on false', run, mapping ->> 'table'));
  run := case
    when run_type in ('timestamp with time zone', 'timestamp without time zone', 'date') then format(e'extract(epoch from (%s\n))', run)
    when mapping ->> 'run' is null then format(e'extract(epoch from (%s\n)::timestamptz)', run)
    else run
  end;

  status := case mapping ->> 'statuses'
    when '{}' then format(e'(%s\n)::text', mapping ->> 'status')
    else format(e'coalesce(%L::jsonb ->> (%s\n)::text, (%2$s\n)::text)', mapping ->> 'statuses', mapping ->> 'status')
  end;
  perform set_config('jobprogress.status_expression', status, true);

  body := format($published$
    select
      job.%1$I::text,
      (%2$s
      )::text,
      (%3$s
      )::text,
      %4$s,
      jobprogress.progress_of(%5$s),
      (%6$s
      )::text,
      (%7$s
      )::timestamptz,
      (%8$s
      )::timestamptz,
      (%9$s
      )::timestamptz,
      (%10$s
      )::timestamptz,
      %11$s
    from %12$s as job
    where job.%1$I = any ($1::%13$s[])
    offset 0 -- so that each expression is evaluated once
  $published$,
    mapping ->> 'id',
    mapping ->> 'owner',
    mapping ->> 'type',
    status,
    case current_setting('jobprogress.progress_type')
      when 'jsonb' then format(e'(%s\n)::jsonb', mapping ->> 'progress')
      else format(e'jobprogress.json((%s\n)::text)', mapping ->> 'progress')
    end,
    mapping ->> 'error',
    mapping ->> 'created_at',
    mapping ->> 'started_at',
    mapping ->> 'completed_at',
    mapping ->> 'updated_at',
    format(e'coalesce((%s\n)::text, '''')', run),
    mapping ->> 'table',
    id_type);
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
    as %L
  $create$, body);

  execute format($create$
    create or replace function jobprogress.run_of(job_id text)
    returns text
    language plpgsql stable
    as %L
  $create$, format($run_of$
    declare
      run text;
    begin
      -- into costs half of what return of a query does
      select coalesce((%1$s
      )::text, '') into run from %2$s as job where job.%3$I = $1::%4$s;
      return run;
    end
  $run_of$, run, mapping ->> 'table', mapping ->> 'id', id_type));

  execute format($create$
    create or replace function jobprogress.some_jobs(most integer)
    returns setof text
    language sql stable security definer
    set search_path = pg_catalog, pg_temp
    set row_security = off
    as %L
  $create$, format('select job.%1$I::text from %2$s as job where job.%1$I is not null limit most', mapping ->> 'id', mapping ->> 'table'));

  execute format($create$
    create or replace function jobprogress.is_id(value text)
    returns boolean
    language sql immutable
    as %L
  $create$, case id_type when 'uuid' then 'select jobprogress.is_uuid(value)' when 'bigint' then 'select jobprogress.is_bigint(value)' else 'select true' end);

  -- The columns that are read, with their types: what a view names is known.
  execute format(e'create view jobprogress.mapped (a, b, c, d, e, f, g, h, i, j, k) as
    select job.%I, (%s\n), (%s\n), (%s\n), (%s\n), (%s\n), (%s\n), (%s\n), (%s\n), (%s\n), (%s\n) from %s as job',
    mapping ->> 'id', mapping ->> 'owner', mapping ->> 'type', mapping ->> 'status', mapping ->> 'progress', mapping ->> 'error',
    coalesce(mapping ->> 'run', 'null'), mapping ->> 'created_at', mapping ->> 'started_at', mapping ->> 'completed_at',
    mapping ->> 'updated_at', mapping ->> 'table');
  select jsonb_object_agg(attname, case nspname when 'pg_catalog' then format_type(atttypid, atttypmod) else format('%I.%I', nspname, typname) end) into columns
  from pg_rewrite
  join pg_depend on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid and refclassid = 'pg_class'::regclass
  join pg_attribute on attrelid = refobjid and attnum = refobjsubid
  join pg_type on pg_type.oid = atttypid
  join pg_namespace on pg_namespace.oid = typnamespace
  where ev_class = 'jobprogress.mapped'::regclass and refobjid = (mapping ->> 'table')::regclass and refobjsubid > 0;
  drop view jobprogress.mapped;

  execute format($create$
    create or replace function jobprogress.attachment()
    returns jsonb
    language sql immutable
    as %L
  $create$, format('select %L::jsonb', mapping || jsonb_build_object('version', 3, 'idType', id_type, 'columns', columns)));
end $$;

comment on function jobprogress.attachment() is 'What is attached, how, and the version of what is installed here.';
comment on function jobprogress.published(text[]) is 'What is published of the jobs named, of those that there are.';
comment on function jobprogress.some_jobs(integer) is 'Ids of some jobs, to try things with.';
