-- A notification says look: it holds the id and no state. It is sent outside of the block, which would keep kilobytes for
-- each row until the transaction ends; and nothing else of the row is touched, which may be megabytes out of line. The
-- function runs with the search_path of the writer, so every name is qualified. The assignments are cheaper than PERFORM.
do $$
begin
  execute replace($create$
    create or replace function jobprogress.notify_job()
    returns trigger
    language plpgsql
    as $notify_job$
    declare
      old_id  pg_catalog.text;
      new_id  pg_catalog.text;
      nothing pg_catalog.text;
    begin
      if pg_catalog.current_setting('jobprogress.notify', true) operator(pg_catalog.=) 'off' then
        return null;
      end if;
      begin
        if tg_op operator(pg_catalog.<>) 'INSERT' then
          old_id := old.{id};
        end if;
        if tg_op operator(pg_catalog.<>) 'DELETE' then
          new_id := new.{id};
        end if;
      exception when others then
        raise warning 'jobprogress: nobody is notified of a change of table %: % (run jobprogress install)', tg_relid::pg_catalog.regclass, sqlerrm;
      end;
      if pg_catalog.octet_length(new_id) operator(pg_catalog.<=) 200 then
        nothing := pg_catalog.pg_notify('jobprogress', new_id);
      end if;
      if pg_catalog.octet_length(old_id) operator(pg_catalog.<=) 200 and (new_id is null or old_id operator(pg_catalog.<>) new_id) then
        nothing := pg_catalog.pg_notify('jobprogress', old_id);
      end if;
      return null;
    end $notify_job$
  $create$, '{id}', quote_ident(current_setting('jobprogress.mapping')::jsonb ->> 'id'));
end $$;

comment on function jobprogress.notify_job() is
  'Trigger: notifies the id of the changed job on channel "jobprogress". set jobprogress.notify = off silences it.';
