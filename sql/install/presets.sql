-- The mappings that are known by name: SQL expressions over the row "job" of the table. What a preset does not say is as
-- in preset job, the stand-in of job.sql. An error is shown only of a job that is not tried again.
do $do$
begin
  perform set_config('jobprogress.presets', $presets${
"job": {
  "table": "job",
  "id": "id",
  "owner": "job.account_id",
  "type": "job.type",
  "status": "job.status",
  "statuses": "",
  "progress": "job.progress",
  "error": "job.error",
  "created_at": "job.created_at",
  "started_at": "job.started_at",
  "completed_at": "job.completed_at",
  "updated_at": "job.updated_at",
  "deleted": "gone"
},
"river": {
  "table": "river_job",
  "owner": "coalesce(job.metadata ->> 'account_id', job.args ->> 'account_id')",
  "type": "job.kind",
  "status": "job.state",
  "statuses": "available=pending,scheduled=pending,retryable=pending,discarded=failed,cancelled=failed",
  "progress": "job.metadata -> 'progress'",
  "error": "case when job.state in ('discarded', 'cancelled') then coalesce(job.errors[cardinality(job.errors)] ->> 'error', job.state::text) end",
  "started_at": "job.attempted_at",
  "completed_at": "job.finalized_at",
  "updated_at": "null"
},
"oban": {
  "table": "oban_jobs",
  "owner": "coalesce(job.meta ->> 'account_id', job.args ->> 'account_id')",
  "type": "job.worker",
  "status": "job.state",
  "statuses": "available=pending,scheduled=pending,suspended=pending,retryable=pending,executing=running,discarded=failed,cancelled=failed",
  "progress": "job.meta -> 'progress'",
  "error": "case when job.state in ('discarded', 'cancelled') then coalesce(job.errors[cardinality(job.errors)] ->> 'error', job.state::text) end",
  "created_at": "job.inserted_at at time zone 'UTC'",
  "started_at": "job.attempted_at at time zone 'UTC'",
  "completed_at": "coalesce(job.completed_at, job.discarded_at, job.cancelled_at) at time zone 'UTC'",
  "updated_at": "null"
},
"good_job": {
  "table": "good_jobs",
  "owner": "coalesce(job.serialized_params ->> 'account_id', job.serialized_params -> 'arguments' -> 0 ->> 'account_id')",
  "type": "job.job_class",
  "status": "case when job.finished_at is not null then case when job.error is null then 'completed' else 'failed' end when job.performed_at is not null then 'running' else 'pending' end",
  "progress": "job.serialized_params -> 'progress'",
  "error": "case when job.finished_at is not null then job.error end",
  "created_at": "job.created_at at time zone 'UTC'",
  "started_at": "job.performed_at at time zone 'UTC'",
  "completed_at": "job.finished_at at time zone 'UTC'",
  "updated_at": "job.updated_at at time zone 'UTC'"
},
"graphile-worker": {
  "table": "graphile_worker._private_jobs",
  "owner": "job.payload ->> 'account_id'",
  "type": "(select task.identifier from graphile_worker._private_tasks as task where task.id = job.task_id)",
  "status": "case when job.locked_at is not null then 'running' when job.attempts >= job.max_attempts and job.last_error is not null then 'failed' else 'pending' end",
  "progress": "job.payload -> 'progress'",
  "error": "case when job.locked_at is null and job.attempts >= job.max_attempts then job.last_error end",
  "run": "nullif(job.attempts, 0)",
  "started_at": "job.locked_at",
  "completed_at": "null",
  "deleted": "completed"
},
"pg-boss": {
  "table": "pgboss.job",
  "owner": "job.data ->> 'account_id'",
  "type": "job.name",
  "status": "job.state",
  "statuses": "created=pending,retry=pending,active=running,cancelled=failed",
  "progress": "job.data -> 'progress'",
  "error": "case when job.state in ('failed', 'cancelled') then coalesce(job.output ->> 'message', job.output ->> 'value', job.state::text) end",
  "created_at": "job.created_on",
  "started_at": "job.started_on",
  "completed_at": "job.completed_on",
  "updated_at": "null"
}
}$presets$, true);
end $do$;
