-- Takes away all that install.sql brought: the schema, its functions, and with them the trigger on the job table.
begin;
set local lock_timeout = '5s';
set local client_min_messages = warning;
drop schema if exists jobprogress cascade;
commit;
