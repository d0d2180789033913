-- item(), whose first argument has the type of the id.
do $$
declare
  id_type  text := current_setting('jobprogress.id_type');
  outdated regprocedure;
begin
  for outdated in
    select oid::regprocedure from pg_proc
    where pronamespace = 'jobprogress'::regnamespace and proname = 'item' and proargtypes[0] <> id_type::regtype
  loop
    execute format('drop function %s', outdated);
  end loop;
  execute replace(replace($create$
    create or replace function jobprogress.item(
      job_id    {type},
      item_id   text,
      item_kind text,
      status    text,
      label     text default null,
      index     bigint default null,
      count     bigint default null,
      total     bigint default null
    )
    returns void
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    as $item$
    declare
      run     text;
      nothing text;
    begin
      if job_id is null or item_id is null or item_kind is null then
        raise exception 'jobprogress.item: job_id, item_id and item_kind must not be null'
          using errcode = 'null_value_not_allowed';
      end if;
      if status is null or status not in ('queued', 'in_progress', 'succeeded', 'failed') then
        raise exception 'jobprogress.item: status is "%", must be queued, in_progress, succeeded or failed', status
          using errcode = 'invalid_parameter_value';
      end if;
      if octet_length(job_id::text) > 200 then
        return; -- nobody watches it
      end if;
      if length(item_id) > 1000 or length(item_kind) > 1000 then
        raise warning 'jobprogress.item: an item of job % is not kept: item_id or item_kind has more than 1,000 characters', job_id;
        return;
      end if;
      if current_setting('transaction_read_only') = 'on' then
        raise warning 'jobprogress.item: an item of job % is not kept: the transaction is read-only', job_id;
        return;
      end if;
      if to_regclass('jobprogress.item_log') is null then
        raise warning 'jobprogress.item: an item of job % is not kept: table jobprogress.item_log is missing', job_id;
        return;
      end if;

      if jobprogress.unwatched(256) and not jobprogress.has_items(job_id::text) then
        return; -- no server is there that would show it or delete it, and none has just been there
      end if;

      -- Not in a serializable transaction, to whose conflicts the read would add. The block takes no transaction id, because
      -- nothing is written in it.
      if current_setting('transaction_isolation') <> 'serializable' then
        begin
          run := jobprogress.run_of(job_id::text);
        exception when others then
          raise warning 'jobprogress.item: the run of job % is unknown: % (%)', job_id, sqlerrm, sqlstate;
        end;
      end if;

      insert into jobprogress.item_log (job, run, item, kind, status, label, index, count, total, xid)
      values (job_id::text, run, item_id, item_kind, status, jobprogress.cut(label, 200), index, count, total, pg_current_xact_id());

      if not jobprogress.unwatched({bucket})
        and current_setting('jobprogress.notify', true) is distinct from 'off'
      then
        nothing := pg_notify('jobprogress', job_id::text);
      end if;
    end $item$
  $create$, '{type}', id_type), '{bucket}', replace(current_setting('jobprogress.bucket'), '{}', 'job_id'));
  execute format($comment$
    comment on function jobprogress.item(%s, text, text, text, text, bigint, bigint, bigint) is
      'Keeps the latest status of an item of a job for its viewers: queued, in_progress, succeeded or failed.'
  $comment$, id_type);
end $$;
