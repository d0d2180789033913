-- A stand-in for the application's own tables, for demos and tests: jobs, and the accounts that own them.
-- Row-level security denies everything to everybody but the owner, as hosted platforms like to have it.
begin;
set local client_min_messages = warning;

do $$
begin
  create type job_type as enum ('sync_liked_songs', 'sync_playlists', 'song_analysis', 'playlist_analysis', 'matching');
exception when duplicate_object then null;
end $$;

do $$
begin
  create type job_status as enum ('pending', 'running', 'completed', 'failed');
exception when duplicate_object then null;
end $$;

create table if not exists account (
  id   uuid primary key,
  name text not null
);

create table if not exists job (
  id           uuid primary key,
  account_id   uuid not null references account (id),
  type         job_type not null,
  status       job_status not null default 'pending',
  progress     jsonb default '{}',
  error        text,
  created_at   timestamptz not null default now(),
  started_at   timestamptz,
  completed_at timestamptz,
  updated_at   timestamptz not null default now()
);

create index if not exists job_account_id on job (account_id, created_at desc);

alter table account enable row level security;
alter table job enable row level security;

insert into account (id, name)
values
  ('00000000-0000-4000-8000-00000000000a', 'Ada'),
  ('00000000-0000-4000-8000-00000000000b', 'Ben')
on conflict do nothing;

commit;
