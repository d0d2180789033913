-- Our functions run with the rights of their owner, over a table whose owner can rename it and put a view in its place. So
-- a superuser hands everything to the owner of the table, also what version 1 left to a superuser.
do $$
declare
  owner name := current_user;
  ours  record;
begin
  if (select rolsuper from pg_roles where rolname = current_user) then
    select rolname into owner from pg_class join pg_roles on pg_roles.oid = relowner
    where pg_class.oid = to_regclass(current_setting('jobprogress.mapping')::jsonb ->> 'table')
      and (not relforcerowsecurity or rolbypassrls or rolsuper)
      and has_schema_privilege(relowner, relnamespace, 'usage');
    if owner is null and to_regnamespace('jobprogress') is null then
      raise exception 'jobprogress: the owner of the table does not see its rows: row-level security is forced, or usage of its schema is missing'
        using hint = 'Give the owner BYPASSRLS or usage of the schema, or install as a role that has both and is no superuser.';
    elsif owner is null then
      raise warning 'jobprogress: jobs are read with the rights of a superuser, because the owner of the table does not see its rows';
      owner := current_user;
    end if;
  end if;
  if to_regnamespace('jobprogress') is null then
    execute format('create schema jobprogress authorization %I', owner);
  elsif owner <> current_user then
    execute format('alter schema jobprogress owner to %I', owner);
    for ours in
      select 'function ' || oid::regprocedure as what from pg_proc where pronamespace = to_regnamespace('jobprogress')
      union all
      select 'table ' || oid::regclass from pg_class where relnamespace = to_regnamespace('jobprogress') and relkind = 'r'
    loop
      execute format('alter %s owner to %I', ours.what, owner);
    end loop;
  end if;
  execute format('set local role %I', owner);
end $$;

-- Expressions are tried with it: what they call must not become the superuser who installs for somebody else. It is dropped
-- before anybody else sees it.
create or replace function jobprogress.trial(query text, out result text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  execute query into result;
end $$;

comment on schema jobprogress is
  'Shows the progress of jobs in the browser: triggers and a helper that notify channel "jobprogress".';

-- Who may read jobs, and who may say what becomes of items: they keep that right, whatever is dropped here.
do $$
begin
  perform set_config('jobprogress.readers', coalesce(jsonb_agg(distinct quote_ident(pg_get_userbyid(a.grantee))) filter (where proname = 'snapshot'), '[]')::text, true),
    set_config('jobprogress.workers', coalesce(jsonb_agg(distinct quote_ident(pg_get_userbyid(a.grantee))) filter (where proname = 'item'), '[]')::text, true)
  from pg_proc as p, aclexplode(p.proacl) as a
  where pronamespace = 'jobprogress'::regnamespace and proname in ('snapshot', 'item') and a.grantee not in (0, proowner);
end $$;

-- Of earlier versions, and what returns something else now.
drop function if exists jobprogress.seal(text);
drop function if exists jobprogress.unwatched(uuid);
drop function if exists jobprogress.counts(jsonb);
drop function if exists jobprogress.any_job();

do $$
declare
  outdated regprocedure;
begin
  for outdated in
    select oid::regprocedure from pg_proc
    where oid = to_regprocedure('jobprogress.snapshot(text[], text[], text[])') and not 'message' = any (proargnames)
  loop
    execute format('drop function %s', outdated);
  end loop;
end $$;
