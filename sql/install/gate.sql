-- The gate. NOTIFY makes commits wait for one another, so nothing is notified that nobody watches. For each bucket of
-- jobs (of the end of their ids) that its viewers watch, a server holds a shared advisory lock of class 1785684592; and
-- number 256 of it as long as it serves this database. A writer tries the exclusive lock and gives it back at once: who
-- gets it has found no server. Nobody ever waits for such a lock.
create or replace function jobprogress.unwatched(bucket integer)
returns boolean
language sql volatile
as $$
  select case when pg_catalog.pg_try_advisory_lock(1785684592, bucket)
    then pg_catalog.pg_advisory_unlock(1785684592, bucket)
    else false
  end
$$;

comment on function jobprogress.unwatched(integer) is 'Reports whether no server watches any job of the bucket.';

do $$
begin
  if current_setting('jobprogress.mapping')::jsonb ->> 'gate' = 'off' then
    create or replace function jobprogress.unwatched(bucket integer)
    returns boolean
    language sql volatile
    as 'select bucket = 256 and case when pg_catalog.pg_try_advisory_lock(1785684592, 256)
      then pg_catalog.pg_advisory_unlock(1785684592, 256) else false end';
  end if;
end $$;
