-- Attaches jobprogress to a job table. One transaction (and one that cleans up); can be run again at any time, also to move to another table.
--
--   psql -v ON_ERROR_STOP=1 -f install.sql
--
-- Settings of the session steer it (PGOPTIONS="-c jobprogress.job_table=app.job" psql ..., or set ... before \i).
-- What is not set stays as it was:
--   jobprogress.job_table     the job table, schema-qualified or found by search_path; at first that of the preset, or job
--   jobprogress.preset        job, river, oban, good_job, graphile-worker or pg-boss: see install/presets.sql
--   jobprogress.id            the column of the id
--   jobprogress.owner, .type, .status, .progress, .error, .run, .created_at, .started_at, .completed_at, .updated_at
--                             SQL expressions over the row "job"
--   jobprogress.statuses      what statuses are called here: retryable=pending,discarded=failed
--   jobprogress.deleted       completed or gone: what it means that a row is deleted
--   jobprogress.move          on: detach the table that is attached, and attach another one
--   jobprogress.gate          off: notify every change, watched or not; at first on
--   jobprogress.service_role  may read the published state of jobs: the role the server connects as
--   jobprogress.worker_role   may call jobprogress.item: the role the workers connect as
--
-- ASCII only: the file must load into a database of any encoding.
begin;
set local standard_conforming_strings = on;

-- A lock request that waits makes every writer wait behind it: rather give up and be run again.
set local lock_timeout = '5s';
set local client_min_messages = warning;
set local check_function_bodies = off; -- functions name others that come later

-- Nobody may put functions of their own in the way of those that are called here.
do $$
begin
  perform pg_catalog.set_config('jobprogress.search_path', pg_catalog.current_setting('search_path'), true);
end $$;
set local search_path = pg_catalog, pg_temp;

-- What is to be attached?
\ir install/owner.sql
\ir install/presets.sql
\ir install/mapping.sql
\ir install/schema.sql
\ir install/checks.sql

-- How it is read.
\ir install/published.sql
\ir install/items.sql
\ir install/read.sql
\ir install/sample.sql
\ir install/list.sql

-- How its changes are notified.
\ir install/gate.sql
\ir install/item.sql
\ir install/notify.sql
\ir install/attach.sql
\ir install/rights.sql

commit;

-- What triggers and functions of version 1 read. They do so no more, and a transaction of theirs that is under way waits
-- for nothing of ours: so this waits for it, which above would be a deadlock.
begin;
set local lock_timeout = '5s';
set local client_min_messages = warning;
drop table if exists jobprogress.secret;
commit;
