-- Takes away all that install.sql brought: the schema, its functions, and with them the triggers on the job table.
begin;
set local lock_timeout = '5s';
set local client_min_messages = warning;
set local search_path = pg_catalog, pg_temp;

-- The job table first: writers lock it before they lock ours, and the other way round would be a deadlock.
do $$
declare
  attached regclass;
begin
  for attached in
    select distinct tgrelid::regclass from pg_trigger
    where tgfoid = to_regproc('jobprogress.notify_job') and tgparentid = 0
  loop
    execute format('lock table %s in access exclusive mode', attached);
  end loop;
end $$;

drop schema if exists jobprogress cascade;
commit;
