-- One install at a time.
do $$
begin
  perform pg_advisory_xact_lock(hashtext('jobprogress.install'));
  perform set_config('jobprogress.known', coalesce((
    select array_agg(oid) from pg_proc where pronamespace = to_regnamespace('jobprogress')
  ), '{}')::text, true);
end $$;

-- Functions of the schema run with the rights of their owner. Nobody else may have put them there. A superuser installs
-- again as the owner of what is there.
do $$
declare
  owner name := (select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'jobprogress');
begin
  if owner is null then
    return;
  end if;
  if owner <> current_user and (select rolsuper from pg_roles where rolname = current_user) then
    execute format('set local role %I', owner);
  end if;
  if owner <> current_user or exists (
    select from pg_proc where pronamespace = 'jobprogress'::regnamespace and pg_get_userbyid(proowner) <> owner
    union all
    select from pg_class where relnamespace = 'jobprogress'::regnamespace and pg_get_userbyid(relowner) <> owner
  ) then
    raise exception 'jobprogress: schema jobprogress or something in it is not owned by %', current_user
      using hint = 'Install as the role that installed it first, or uninstall it as that role.';
  end if;
end $$;
