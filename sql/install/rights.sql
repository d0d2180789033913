drop function jobprogress.trial(text);

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

do $$
declare
  service_role text := nullif(current_setting('jobprogress.service_role', true), '');
  worker_role  text := nullif(current_setting('jobprogress.worker_role', true), '');
  id_type      text := current_setting('jobprogress.id_type');
  who          text;
begin
  for who in
    select jsonb_array_elements_text(current_setting('jobprogress.readers')::jsonb)
    union all
    select quote_ident(service_role) where service_role is not null
  loop
    execute format('grant usage on schema jobprogress to %s', who);
    execute format('grant execute on function jobprogress.snapshot(text[], text[], text[]), jobprogress.sweep(text),
      jobprogress.some_jobs(integer), jobprogress.lists(text[]), jobprogress.attachment() to %s', who);
  end loop;
  for who in
    select jsonb_array_elements_text(current_setting('jobprogress.workers')::jsonb)
    union all
    select quote_ident(worker_role) where worker_role is not null
  loop
    execute format('grant usage on schema jobprogress to %s', who);
    execute format('grant execute on function jobprogress.item(%s, text, text, text, text, bigint, bigint, bigint) to %s', id_type, who);
  end loop;
end $$;

-- A server of version 1 calls this, and logs what it is answered.
do $$
begin
  if to_regprocedure('jobprogress.snapshot(uuid[])') is null then
    return;
  end if;
  begin
    execute $create$
      create or replace function jobprogress.snapshot(job_ids uuid[])
      returns table (id uuid, visible text, found boolean, account_id text, type text, status text, progress text, error text,
        created_at timestamptz, started_at timestamptz, completed_at timestamptz, updated_at timestamptz, seal_key bytea)
      language plpgsql
      as $stub$
      begin
        raise exception 'this jobprogress server is older than what is installed in the database (version 3): upgrade the server';
      end $stub$
    $create$;
  exception when invalid_function_definition then
    drop function jobprogress.snapshot(uuid[]); -- of an earlier version still
  end;
end $$;
