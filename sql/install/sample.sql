-- What fails on a row fails here rather than later: a thousand of them are read, as the server reads them.
do $$
declare
  ids    text[] := array(select some_jobs from jobprogress.some_jobs(1000));
  broken text;
  start  timestamptz := clock_timestamp();
begin
  begin
    perform from jobprogress.snapshot(ids);
    if clock_timestamp() - start > interval '2 seconds' then
      raise exception 'jobprogress: a read of % rows took % seconds, and servers give up after 3', cardinality(ids), extract(epoch from clock_timestamp() - start)::int
        using errcode = 'query_canceled', hint = 'Choose expressions that are quicker.';
    end if;
    return;
  exception when others then
    null; -- which one?
  end;
  foreach broken in array ids loop
    begin
      perform from jobprogress.snapshot(array[broken]);
    exception when others then
      raise exception 'jobprogress: row % can''t be read: % (%)', broken, sqlerrm, sqlstate
        using hint = 'Mend the row, or choose an expression that does not fail on it.';
    end;
  end loop;
  raise exception 'jobprogress: the rows of the table can''t be read';
end $$;

do $$
declare
  said text := jobprogress.trial($query$
    select format('the progress of %s sampled rows holds no count: %s', count(*), min(left(progress::text, 200)))
    from (select array_agg(some_jobs) as ids from jobprogress.some_jobs(1000)) as sample, jobprogress.published(sample.ids)
    where progress is not null and progress not in ('null', '{}', '""')
    having count(*) > 0
      and not bool_or(jsonb_typeof(progress) = 'object' and progress ?| array['total', 'done', 'succeeded', 'failed', 'message'])
  $query$);
begin
  if said is not null then
    raise exception 'jobprogress: %', said
      using hint = 'It should be like {"total":100,"done":50,"succeeded":48,"failed":2}. Name another expression with --progress, or null.';
  end if;
end $$;

-- Statuses that viewers see as they are: those there are, and those there may be.
do $$
declare
  mapping  jsonb := current_setting('jobprogress.mapping');
  of_type  text := jobprogress.trial(format(e'select pg_typeof((\n%s\n))::oid::text from (values (1)) as one left join %s as job on false',
    mapping ->> 'status', mapping ->> 'table'));
  declared text[] := array(select enumlabel::text from pg_enum where enumtypid::text = of_type);
  unknown  text;
begin
  select string_agg(distinct status, ', ') into unknown
  from (
    select coalesce(mapping -> 'statuses' ->> label, label) as status from unnest(declared) as label
    union
    select jsonb_array_elements_text(jobprogress.trial(
      'select coalesce(jsonb_agg(distinct status), ''[]'') from jobprogress.published(array(select some_jobs from jobprogress.some_jobs(1000)))')::jsonb)
  ) as found
  where status not in ('pending', 'running', 'completed', 'failed');
  if unknown is not null then
    raise warning 'jobprogress: status % is shown as it is, and ends no stream: say what it is called here, as in --statuses queued=pending,active=running,done=completed,cancelled=failed', unknown;
  end if;
end $$;
