-- The jobs of an account: its list.
do $$
declare
  mapping jsonb := current_setting('jobprogress.mapping');
  owner   text := mapping ->> 'owner';
  of_type text := jobprogress.trial(format(e'select pg_typeof((\n%s\n))::text from (values (1)) as one left join %s as job on false', owner, mapping ->> 'table'));
begin
  -- Compared as text, but so that an index on the owner is of use.
  execute format($create$
    create or replace function jobprogress.published_of(account text)
    returns setof text
    language sql stable rows 100
    as %L
  $create$, format($published_of$
    select job.%1$I::text
    from %2$s as job
    where %3$s and job.%1$I is not null and octet_length(job.%1$I::text) between 1 and 200 and (
      coalesce(%4$s, '') not in ('completed', 'failed')
      or coalesce((%5$s
      )::timestamptz, (%6$s
      )::timestamptz) > now() - interval '10 minutes'
    )
    order by (%7$s
    )::timestamptz desc nulls last, job.%1$I desc
    limit 100
  $published_of$,
    mapping ->> 'id',
    mapping ->> 'table',
    case
      when of_type = 'uuid' then format(e'(%s\n) = case when jobprogress.is_uuid($1) then $1::uuid end', owner)
      when of_type in ('bigint', 'integer', 'smallint') then format(e'(%s\n) = case when jobprogress.is_bigint($1) then $1::bigint end', owner)
      when of_type in ('text', 'character varying') then format(e'(%s\n) = $1', owner)
      else format(e'(%s\n)::text = $1', owner)
    end,
    current_setting('jobprogress.status_expression'),
    mapping ->> 'completed_at',
    mapping ->> 'updated_at',
    mapping ->> 'created_at'));
end $$;

-- The lists of accounts: ids of the jobs that have not ended, or ended within the last ten minutes; the newest first, and at
-- most 100 of an account.
create or replace function jobprogress.lists(accounts text[])
returns table (account text, ids text[])
language plpgsql stable security definer rows 100
set search_path = pg_catalog, pg_temp
set row_security = off
set plan_cache_mode = force_generic_plan -- as in snapshot
as $$
begin
  return query
  select wanted.account, array(select jobprogress.published_of(wanted.account))
  from unnest(accounts) as wanted (account);
end $$;

comment on function jobprogress.lists(text[]) is 'The ids of the jobs that the accounts named may watch now.';
comment on function jobprogress.published_of(text) is 'The ids of the jobs that an account may watch now.';

-- Without an index on the owner each of them reads the whole table.
do $$
declare
  mapping jsonb := current_setting('jobprogress.mapping');
  plan    text;
begin
  perform set_config('enable_seqscan', 'off', true);
  plan := jobprogress.trial(format('explain (format json) %s',
    (select replace(prosrc, '$1', '(select null::text)') from pg_proc where oid = to_regprocedure('jobprogress.published_of(text)'))));
  perform set_config('enable_seqscan', 'on', true);
  -- The account is a subquery there, and so $0, or InitPlan since PostgreSQL 17.
  if plan !~ '"Index Cond": "([^"\\]|\\.)*(\$[0-9]|InitPlan)' then
    raise warning 'jobprogress: no index begins with the owner, so each look for the jobs of an account reads the whole table: create an index on (%)', mapping ->> 'owner';
  end if;
end $$;
