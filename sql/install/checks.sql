-- What can't work is refused with a sentence.
do $$
declare
  mapping   jsonb := current_setting('jobprogress.mapping');
  job_table regclass := mapping ->> 'table';
  gate      boolean := mapping ->> 'gate' = 'on';
  id_name   name := mapping ->> 'id';
  is_a      pg_class := (select c from pg_class as c where oid = job_table);
  id        pg_attribute;
  id_type   text;
  bucket    text;
  missing   text;
  given     text;
  flag      text;
  what      text;
  of_type   text;
  type_of   text := e'select pg_typeof((\n%s\n))::text from (values (1)) as one left join %s as job on false';
begin
  what := case
    when is_a.relpersistence = 't' then 'a temporary table'
    when is_a.relkind = 'v' then 'a view'
    when is_a.relkind = 'm' then 'a materialized view'
    when is_a.relkind = 'f' then 'a foreign table'
    when is_a.relkind not in ('r', 'p') then 'no table'
    when is_a.relispartition then 'a partition of ' || (select inhparent::regclass from pg_inherits where inhrelid = job_table)
    when is_a.relkind = 'p' and is_a.relpersistence = 'u' then 'partitioned and unlogged, which PostgreSQL no longer supports'
  end;
  if what is not null then
    raise exception 'jobprogress: % is %', job_table, what
      using hint = 'Attach the table that the application writes to: triggers must see each write of its rows.';
  end if;
  if exists (
    select from pg_trigger
    where tgrelid = job_table and tgname in ('jobprogress', 'jobprogress_insert') and tgfoid is distinct from to_regproc('jobprogress.notify_job')
  ) then
    raise exception 'jobprogress: table % has a trigger jobprogress that is not ours', job_table
      using hint = 'Rename it: alter trigger jobprogress on ... rename to ....';
  end if;
  if row_security_active(job_table) then
    raise exception 'jobprogress: row-level security hides rows of % from role %', job_table, current_user
      using hint = 'Install as the owner of the table or as a role with BYPASSRLS: jobs are read with the rights of the role that installs.';
  end if;
  select string_agg(needed::regprocedure::text, ', ') into missing
  from unnest(array['pg_notify(text, text)', 'current_setting(text, boolean)', 'pg_try_advisory_lock(integer, integer)',
    'pg_advisory_unlock(integer, integer)']) with ordinality as f (needed, place)
  where not has_function_privilege('public', 'pg_catalog.' || needed, 'execute') and (gate or place < 3);
  if missing is not null then
    raise exception 'jobprogress: not everybody who writes may call %', missing
      using hint = 'The trigger calls it with the rights of the writer: grant execute to public. The lock functions are not needed with the gate off.';
  end if;

  select string_agg(role, ', ') into missing
  from unnest(array[nullif(current_setting('jobprogress.service_role', true), ''), nullif(current_setting('jobprogress.worker_role', true), '')]) as role
  where to_regrole(quote_ident(role)) is null and role is not null;
  if missing is not null then
    raise exception 'jobprogress: role % does not exist', missing
      using hint = 'Create the role first: --service-role and --worker-role name roles that exist.';
  end if;

  -- Columns that are not there, all at once, with the flags that may help.
  select
    string_agg(attribute, ', ' order by attribute),
    string_agg(case case when key = 'progress' and other ~ '^(percent|pct|progress_p)' then 'percent' else key end
      when 'id' then '--id ' || coalesce(quote_ident(other), 'COLUMN')
      when 'percent' then format('--progress "jsonb_build_object(''total'', 100, ''done'', job.%I)"', other)
      else format('--%s ''%s''', replace(key, '_', '-'), coalesce('job.' || quote_ident(other), case when key in ('owner', 'status') then '...' else 'null' end))
    end, ' ' order by place)
  into missing, given
  from (
    select *, case key when 'id' then expression when 'statuses' then null else substring(expression from '^job\.([a-z_]+)$') end as attribute
    from unnest(array['id', 'owner', 'type', 'status', 'progress', 'error', 'created_at', 'started_at', 'completed_at', 'updated_at'])
      with ordinality as one (key, place), jsonb_extract_path_text(mapping, key) as expression
  ) as needed
  left join lateral ( -- what it may be called here
    select attname as other
    from unnest(array[attribute] || case key
      when 'owner' then array['user_id', 'owner_id', 'tenant_id', 'customer_id', 'account', 'owner', 'customer', 'username']
      when 'status' then array['state']
      when 'type' then array['kind', 'job_type', 'name']
      when 'error' then array['error_message', 'failed_reason', 'failure_reason', 'last_error', 'err', 'failure', 'reason']
      when 'progress' then array['percent', 'pct', 'percentage', 'progress_percent', 'progress_pct', 'percent_complete']
      when 'created_at' then array['created', 'inserted_at', 'enqueued_at', 'queued_at', 'added_at']
      when 'started_at' then array['started', 'began_at', 'began', 'begun_at', 'attempted_at']
      when 'completed_at' then array['finished_at', 'ended_at', 'ended', 'finalized_at', 'done_at']
      when 'updated_at' then array['updated', 'modified_at', 'modified', 'changed_at']
      else '{}'
    end)
      with ordinality as name (wanted, place)
    join pg_attribute on attrelid = job_table and attnum > 0 and not attisdropped
      and lower(replace(attname, '_', '')) = replace(wanted, '_', '')
    order by name.place
    limit 1
  ) as guess on true
  where attribute is not null
    and not exists (select from pg_attribute where attrelid = job_table and attname = attribute and attnum > 0 and not attisdropped);
  if missing is not null then
    raise exception 'jobprogress: table % has no column %', job_table, missing
      using hint = 'Say where it has what viewers see, in SQL over the row job, or null for what there is not: ' || given;
  end if;

  -- The id is what notifications name, and what rows are found by.
  select * into id from pg_attribute where attrelid = job_table and attname = id_name and attnum > 0 and not attisdropped;
  with recursive base as ( -- a domain may be one of another
    select oid, typbasetype from pg_type where oid = id.atttypid
    union all
    select pg_type.oid, pg_type.typbasetype from base join pg_type on pg_type.oid = base.typbasetype
  )
  select case oid::regtype::text
    when 'uuid' then 'uuid' when 'bigint' then 'bigint' when 'integer' then 'bigint' when 'smallint' then 'bigint'
    when 'text' then 'text' when 'character varying' then 'text'
  end into id_type
  from base where typbasetype = 0;
  if id_type is null then
    raise exception 'jobprogress: column % of table % is of type %', id_name, job_table, format_type(id.atttypid, id.atttypmod)
      using hint = 'Ids are uuid, bigint, integer or text. --id names another column.';
  end if;
  if id.attgenerated = 'v' then
    raise exception 'jobprogress: column % of table % is a virtual generated column, which triggers do not see', id_name, job_table
      using hint = 'Name another one with --id, or make it a stored one.';
  end if;
  if not exists (
    select from pg_index
    where indrelid = job_table and indkey[0] = id.attnum and indisvalid and indpred is null
      and (select amname from pg_am join pg_class on pg_am.oid = relam where pg_class.oid = indexrelid) in ('btree', 'hash')
  ) then
    raise exception 'jobprogress: column % of table % has no index that begins with it, so each look at a job would read the whole table', id_name, job_table
      using hint = format('create index%s on %s (%I)', case is_a.relkind when 'r' then ' concurrently' else '' end, job_table, id_name);
  end if;
  if not exists (
    select from pg_index
    where indrelid = job_table and indisunique and indisvalid and indpred is null and indnkeyatts = 1 and indkey[0] = id.attnum
  ) then
    select string_agg(attname, ', ') into given
    from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey) and attnum <> id.attnum
    where indrelid = job_table and indisunique and id.attnum = any (indkey) and is_a.relkind = 'p';
    if given is null then
      raise exception 'jobprogress: column % of table % is not unique, so it does not name a job', id_name, job_table
        using hint = format('create unique index%s on %s (%I), or name another column with --id.', case is_a.relkind when 'r' then ' concurrently' else '' end, job_table, id_name);
    end if;
    raise warning 'jobprogress: column % of the partitioned table % is unique only together with %: two jobs of one id would be shown as one, and each look at a job searches the index of each of % partitions',
      id_name, job_table, given, (select count(*) from pg_partition_tree(job_table) where isleaf);
  end if;
  bucket := case id_type
    when 'uuid' then 'pg_catalog.get_byte(pg_catalog.uuid_send({}), 15)'
    when 'bigint' then '({} operator(pg_catalog.&) 255)::pg_catalog.int4'
    else '(((37 operator(pg_catalog.*) pg_catalog.ascii(pg_catalog.left(pg_catalog.right({}, 2), 1))) operator(pg_catalog.+) pg_catalog.ascii(pg_catalog.right({}, 1))) operator(pg_catalog.&) 255)'
  end;
  if id_type = 'text' and getdatabaseencoding() not in ('UTF8', 'LATIN1') then
    if gate then -- ascii() fails there, and with it the writer, or returns what the server does not compute
      raise exception 'jobprogress: ids of type text need --gate off in a database of encoding %', getdatabaseencoding();
    end if;
    bucket := '0';
  end if;
  perform set_config('jobprogress.id_type', id_type, true), set_config('jobprogress.bucket', bucket, true);

  -- Each expression by itself, and as our functions see it. WHERE refuses what returns a set, or looks at several rows.
  for given, flag, what in
    select mapping ->> key, '--' || replace(key, '_', '-'), cast_to
    from unnest(
      array['owner', 'type', 'status', 'progress', 'error', 'run', 'created_at', 'started_at', 'completed_at', 'updated_at'],
      array['text', 'text', 'text', 'text', 'text', 'text', 'timestamptz', 'timestamptz', 'timestamptz', 'timestamptz']
    ) as expression (key, cast_to)
    where mapping ->> key is not null
  loop
    begin
      perform jobprogress.trial(format(e'select '''' from %s as job where ((\n%s\n)::%s) is null limit 0', mapping ->> 'table', given, what));
      of_type := jobprogress.trial(format(type_of, given, mapping ->> 'table'));
      if exists (select from pg_type where oid = to_regtype(of_type) and (typtype = 'c' or typname = 'record')) then
        raise exception 'it is more than one';
      end if;
    exception when others then
      raise exception 'jobprogress: % is not usable: % (%)', flag, sqlerrm, given
        using hint = case
          when sqlstate = '42846' and what = 'timestamptz' then format('It must be a moment. For seconds since 1970: %s "to_timestamp(%s)".', flag, given)
          else 'It must be one SQL expression over the row job of the table, like job."userId". Functions and types of your own need their schema.'
        end;
    end;
  end loop;
  what := jobprogress.trial(format(type_of, mapping ->> 'progress', mapping ->> 'table'));
  if what not in ('jsonb', 'json', 'text', 'character varying', 'unknown') then
    raise exception 'jobprogress: --progress is of type %, and must be jsonb, json or text like {"total":100,"done":50}: %', what, mapping ->> 'progress'
      using hint = format('For a number of percents: --progress "jsonb_build_object(''total'', 100, ''done'', %s)". For none: --progress null.', mapping ->> 'progress');
  end if;
  perform set_config('jobprogress.progress_type', what, true);
end $$;
