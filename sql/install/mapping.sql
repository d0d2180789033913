-- What is to be attached, and how: what was chosen before, the preset, and the settings of this session, of which the later
-- wins. The rest of this transaction finds it in jobprogress.mapping.
do $$
declare
  keys      text[] := array['id', 'owner', 'type', 'status', 'statuses', 'progress', 'error', 'run', 'created_at', 'started_at',
    'completed_at', 'updated_at', 'deleted', 'gate'];
  presets   jsonb := current_setting('jobprogress.presets');
  preset    text := nullif(current_setting('jobprogress.preset', true), '');
  wanted    text := nullif(current_setting('jobprogress.job_table', true), '');
  earlier   jsonb := '{}';
  literal   text;
  chosen    jsonb;
  mapping   jsonb;
  statuses  jsonb := '{}';
  pair      text;
  key       text;
  value     text;
  job_table regclass;
begin
  -- The function is not called: its owner may have written another one, which would run as us.
  select substring(prosrc from '^\s*select\s+(E?''.*'')::jsonb\s*$') into literal
  from pg_proc where oid = to_regprocedure('jobprogress.attachment()');
  if literal like 'E%' then
    literal := replace(substr(literal, 2), '\\', '\');
  end if;
  if literal is not null then
    earlier := replace(substr(literal, 2, length(literal) - 2), '''''', '''');
  elsif to_regproc('jobprogress.notify_job') is not null then -- version 1
    select coalesce(jsonb_object_agg('table', format('%I.%I', nspname, relname)), '{}') into earlier
    from pg_trigger join pg_class on pg_class.oid = tgrelid join pg_namespace on pg_namespace.oid = relnamespace
    where tgfoid = 'jobprogress.notify_job'::regproc and tgparentid = 0;
  end if;

  chosen := coalesce(earlier -> 'chosen', jsonb_strip_nulls(jsonb_build_object('gate', earlier -> 'gate')));
  if preset is not null then
    if not presets ? preset then
      raise exception 'jobprogress: there is no preset "%"', preset
        using hint = 'There are ' || (select string_agg(name, ', ' order by name) from jsonb_object_keys(presets) as name) || '.';
    end if;
    chosen := jsonb_build_object('preset', preset) || jsonb_strip_nulls(jsonb_build_object('gate', chosen -> 'gate'));
  end if;
  foreach key in array keys loop
    value := nullif(current_setting('jobprogress.' || key, true), '');
    if value is not null then
      chosen := chosen || jsonb_build_object(key, value);
    end if;
  end loop;
  mapping := presets -> 'job' || '{"gate": "on"}' || coalesce(presets -> (chosen ->> 'preset'), '{}') || chosen;

  if mapping ->> 'gate' not in ('on', 'off') then
    raise exception 'jobprogress: jobprogress.gate is "%", must be on or off', mapping ->> 'gate';
  end if;
  if mapping ->> 'deleted' not in ('completed', 'gone') then
    raise exception 'jobprogress: --deleted is "%", must be completed or gone', mapping ->> 'deleted'
      using hint = 'completed: a row is deleted when its job has succeeded. gone: a deleted row is a job that is not there any more.';
  end if;
  foreach pair in array string_to_array(mapping ->> 'statuses', ',') loop
    if pair !~ '^\s*[^=]*[^=\s]\s*=\s*[^=\s][^=]*$' then
      raise exception 'jobprogress: --statuses has "%", which is not like retryable=pending', pair
        using hint = 'Name each status of the table and what viewers see, separated by commas: available=pending,discarded=failed.';
    end if;
    if trim(split_part(pair, '=', 2)) not in ('pending', 'running', 'completed', 'failed') then
      raise exception 'jobprogress: --statuses has "%", and viewers know pending, running, completed and failed', pair
        using hint = 'A status that is not named is shown as it is.';
    end if;
    statuses := statuses || jsonb_build_object(trim(split_part(pair, '=', 1)), trim(split_part(pair, '=', 2)));
  end loop;

  wanted := coalesce(wanted, case when preset is null then earlier ->> 'table' end, mapping ->> 'table');
  begin
    perform parse_ident(wanted); -- to_regclass fails for what is no name only before PostgreSQL 16
    perform set_config('search_path', current_setting('jobprogress.search_path'), true);
    job_table := to_regclass(wanted);
    perform set_config('search_path', 'pg_catalog, pg_temp', true);
  exception when syntax_error or invalid_name or invalid_parameter_value or cardinality_violation or feature_not_supported then
    raise exception 'jobprogress: % is not the name of a table', wanted
      using hint = 'Write it as in SQL: app.job, or app."Odd jobs".';
  end;
  if job_table is null then
    raise exception 'jobprogress: table % does not exist', wanted
      using hint = coalesce((
        select format('Did you mean %s? Write it as in SQL: names with capitals are quoted.', string_agg(format('%I.%I', nspname, relname), ' or '))
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relkind in ('r', 'p') and lower(relname) = lower(regexp_replace(wanted, '.*\.', ''))
        having count(*) > 0
      ), 'Name the job table, schema-qualified or found by search_path: jobprogress install --table, or set jobprogress.job_table.');
  end if;
  if to_regclass(earlier ->> 'table') <> job_table and coalesce(current_setting('jobprogress.move', true), '') <> 'on' then
    raise exception 'jobprogress: attached is %, and would move from there to %', earlier ->> 'table', job_table
      using hint = format('One table of a database is attached. To detach %s: jobprogress install --move, or set jobprogress.move = on.', earlier ->> 'table');
  end if;

  mapping := mapping || jsonb_build_object('chosen', chosen, 'statuses', statuses, 'table', (
    select format('%I.%I', nspname, relname)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = job_table
  ));
  perform set_config('jobprogress.mapping', mapping::text, true);
end $$;
