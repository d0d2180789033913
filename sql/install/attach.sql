-- The triggers.
do $$
declare
  mapping   jsonb := current_setting('jobprogress.mapping');
  job_table regclass := mapping ->> 'table';
  gate      text := mapping ->> 'gate';
  id_name   name := mapping ->> 'id';
  bucket    text := current_setting('jobprogress.bucket');
  tables    regclass[];
  enabled   jsonb;
  attached  record;
begin
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
          'when (not (pg_catalog.pg_try_advisory_lock(1785684592, %1$s) and pg_catalog.pg_advisory_unlock(1785684592, %1$s)))',
          replace(bucket, '{}', format('%s.%I', one.tuple, id_name)))
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
end $$;
