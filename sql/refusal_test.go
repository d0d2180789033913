package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/store"
)

func TestInstallRefusesWithASentence(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		setup   string
		table   string
		preset  string
		mapping map[string]string
		want    []string
	}{
		"no such table":      {table: "nowhere", want: []string{"table nowhere does not exist", "--table"}},
		"no name of a table": {table: "app.job; drop", want: []string{"app.job; drop is not the name of a table", `app."Odd jobs"`}},
		"half a quote":       {table: `it's "odd`, want: []string{`it's "odd is not the name of a table`}},
		"no such preset":     {preset: "sidekiq", want: []string{`no preset "sidekiq"`, "good_job, graphile-worker"}},
		"missing columns":    {setup: `create table task (id uuid primary key, "userId" int, status text, "createdAt" timestamp)`, want: []string{"has no column account_id, completed_at, created_at", `--owner 'job."userId"'`, `--created-at 'job."createdAt"'`, "--progress 'null'", "--error 'null'"}},
		"columns of other names": {setup: `create table task (id uuid primary key, customer text, state text, pct int, err text, began timestamptz, ended timestamptz)`, want: []string{
			"--owner 'job.customer'", "--status 'job.state'", `--progress "jsonb_build_object('total', 100, 'done', job.pct)" --error 'job.err'`, "--started-at 'job.began' --completed-at 'job.ended'"}},
		"no such id column":     {setup: fmt.Sprintf(createTask, "uuid"), mapping: with(taskMapping, "id", "job_id"), want: []string{"has no column job_id", "--id"}},
		"a view":                {setup: `create view task as select * from job`, want: []string{"task is a view"}},
		"a materialized view":   {setup: `create materialized view task as select * from job`, want: []string{"is a materialized view"}},
		"a foreign table":       {setup: `create foreign data wrapper w; create server s foreign data wrapper w; create foreign table task (id uuid) server s`, want: []string{"is a foreign table"}},
		"an index":              {table: "job_pkey", want: []string{"is no table"}},
		"a partition":           {setup: `create table parts (like job) partition by hash (id); create table task partition of parts for values with (modulus 1, remainder 0)`, want: []string{"is a partition of public.parts"}},
		"id without an index":   {setup: `create table task (like job)`, want: []string{"no index that begins with it", "create index concurrently on public.task (id)"}},
		"id with a partial one": {setup: `create table task (like job); create unique index on task (id) where status = 'running'`, want: []string{"no index that begins with it"}},
		"id that is second":     {setup: `create table task (like job); create unique index on task (type, id)`, want: []string{"no index that begins with it"}},
		"id that is not unique": {setup: `create table task (like job); create index on task (id)`, want: []string{"is not unique", "create unique index concurrently on public.task (id)"}},
		"id unique with others": {setup: `create table task (like job); create unique index on task (id, type)`, want: []string{"is not unique"}},
		"id of another type":    {setup: `create table task (like job); alter table task alter id type char(36); alter table task add primary key (id)`, want: []string{"column id of table public.task is of type character(36)", "uuid, bigint, integer or text"}},
		"created_at bigint":     {setup: `create table task (like job including all); alter table task drop created_at, add created_at bigint`, want: []string{"--created-at is not usable", "cannot cast type bigint", "to_timestamp(job.created_at)"}},
		"progress integer":      {setup: `create table task (like job including all); alter table task drop progress, add progress integer`, want: []string{"--progress is of type integer", "jsonb_build_object('total', 100, 'done', job.progress)"}},
		"no such expression":    {setup: fmt.Sprintf(createTask, "uuid"), mapping: with(taskMapping, "owner", "job.data ->> 'x'"), want: []string{"--owner is not usable", "column job.data does not exist"}},
		"half an expression":    {setup: fmt.Sprintf(createTask, "uuid"), mapping: with(taskMapping, "owner", "(job.state"), want: []string{"--owner is not usable", "syntax error"}},
		"two expressions":       {setup: fmt.Sprintf(createTask, "uuid"), mapping: with(taskMapping, "type", "1, 2"), want: []string{"--type is not usable"}},
		"an aggregate":          {setup: fmt.Sprintf(createTask, "uuid"), mapping: with(taskMapping, "type", "max(job.state)"), want: []string{"--type is not usable"}},
		"a set":                 {setup: fmt.Sprintf(createTask, "uuid"), mapping: with(taskMapping, "type", "generate_series(1, 2)"), want: []string{"--type is not usable", "set-returning"}},
		"a function without its schema": {setup: `create function f(text) returns text language sql as 'select $1'; ` + fmt.Sprintf(createTask, "bigint") + `; insert into task values (5)`,
			mapping: with(taskMapping, "type", "f(state)"), want: []string{"f(text) does not exist", "need their schema"}},
		"an expression that fails on a row": {setup: fmt.Sprintf(createTask, "bigint") + `; insert into task select i, 'ada', 'queued' from generate_series(1, 1000) as i; update task set state = 'x' where "taskId" = 500`,
			mapping: with(taskMapping, "owner", "case job.state when 'x' then 1 / (length(job.state) - 1) else 7 end"), want: []string{"row 500 can't be read: division by zero"}},
		"progress without a count": {setup: fmt.Sprintf(createTask, "bigint") + `; insert into task values (1, 'ada', 'queued', '{"percent": 5}'), (2, 'ada', 'queued', '{}')`,
			mapping: taskMapping, want: []string{`the progress of 1 sampled rows holds no count: {"percent": 5}`}},
		"statuses without an equals sign": {setup: fmt.Sprintf(createTask, "bigint"), mapping: with(taskMapping, "statuses", "queued"), want: []string{`--statuses has "queued"`}},
		"statuses of ours misspelt":       {setup: fmt.Sprintf(createTask, "bigint"), mapping: with(taskMapping, "statuses", "done=completd"), want: []string{`--statuses has "done=completd"`, "pending, running, completed and failed"}},
		"capitals":                        {setup: `create table "Task" (like job)`, want: []string{`Did you mean public."Task"?`}},
		"a row":                           {setup: fmt.Sprintf(createTask, "bigint"), mapping: with(taskMapping, "owner", "job.*"), want: []string{"--owner is not usable"}},
		"a window":                        {setup: fmt.Sprintf(createTask, "bigint"), mapping: with(taskMapping, "owner", "max(job.state) over ()"), want: []string{"--owner is not usable", "window"}},
		"a slow one":                      {setup: fmt.Sprintf(createTask, "bigint") + `; insert into task values (1, 'ada', 'queued')`, mapping: with(taskMapping, "owner", "pg_sleep(2.1)::text"), want: []string{"took 2 seconds", "quicker"}},
		"deleted, but how":                {setup: fmt.Sprintf(createTask, "bigint"), mapping: with(taskMapping, "deleted", "yes"), want: []string{`--deleted is "yes"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			pgtest.Exec(t, pgtest.Connect(t, url), tt.setup)
			table := tt.table
			if table == "" && tt.preset == "" {
				table = "task"
			}
			err := store.Install(t.Context(), url, store.Installation{Table: table, Preset: tt.preset, Mapping: tt.mapping, Move: true})
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q", err, want)
				}
			}
			if attached, err := store.Attached(t.Context(), url); attached.Table != "public.job" || err != nil {
				t.Errorf("attached is %q, %v", attached.Table, err)
			}
		})
	}
}

func TestInstallRefusesARoleThatIsNotThere(t *testing.T) {
	t.Parallel()
	err := store.Install(t.Context(), pgtest.New(t), store.Installation{WorkerRole: "no such role"})
	if err == nil || !strings.Contains(err.Error(), `role no such role does not exist`) || !strings.Contains(err.Error(), "--worker-role") {
		t.Errorf("error %v", err)
	}
}

func TestInstallRefusesAVirtualID(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	if pgtest.Query[int](t, admin, `select current_setting('server_version_num')::int`) < 180000 {
		return // there are none
	}
	pgtest.Exec(t, admin, `create table task (like job); alter table task drop id; alter table task add id bigint generated always as (7) virtual`)
	err := store.Install(t.Context(), url, store.Installation{Table: "task", Move: true})
	if err == nil || !strings.Contains(err.Error(), "virtual generated column") {
		t.Errorf("error %v", err)
	}
}

func TestInstallRefusesAnUnloggedPartitionedTable(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	if pgtest.Query[int](t, admin, `select current_setting('server_version_num')::int`) >= 180000 {
		return // PostgreSQL refuses to make one
	}
	pgtest.Exec(t, admin, `create unlogged table task (like job) partition by hash (id)`)
	err := store.Install(t.Context(), url, store.Installation{Table: "task", Move: true})
	if err == nil || !strings.Contains(err.Error(), "partitioned and unlogged") {
		t.Errorf("error %v", err)
	}
}

// Of a partitioned table the key must hold the partition key, too.
func TestIDThatIsUniqueOnlyTogetherWithAnother(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `create table task (like job including defaults) partition by list (type); create table part partition of task default;
		alter table task add primary key (id, type)`)
	var warned []string
	install(t, url, store.Installation{Table: "task", Move: true, Warn: func(text string) { warned = append(warned, text) }})
	if len(warned) != 2 || !strings.Contains(warned[1], "no index begins with the owner") || !strings.Contains(warned[0], "unique only together with type") || !strings.Contains(warned[0], "each of 1 partitions") {
		t.Errorf("warned of %q", warned)
	}
}

func TestInstallWarnsOfStatusesThatAreNoEnd(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	pgtest.Exec(t, pgtest.Connect(t, url), fmt.Sprintf(createTask, "bigint")+`; insert into task values (1, 'ada', 'cancelled'), (2, 'ada', 'done')`)
	var warned []string
	i := store.Installation{Table: "task", Move: true, Mapping: taskMapping, Warn: func(text string) { warned = append(warned, text) }}
	install(t, url, i)
	if len(warned) != 2 || !strings.Contains(warned[0], "status cancelled is shown as it is") {
		t.Errorf("warned of %q", warned)
	}
	pgtest.Exec(t, pgtest.Connect(t, url), `alter type job_status add value 'aborted'`)
	warned = nil
	install(t, url, store.Installation{Preset: "job", Move: true, Warn: i.Warn})
	if len(warned) != 1 || !strings.Contains(warned[0], "status aborted") {
		t.Errorf("warned of %q", warned)
	}
}

func TestNothingMovesWithoutBeingAsked(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	admin := pgtest.Connect(t, url)
	pgtest.Exec(t, admin, `create table task (like job including all)`)
	err := store.Install(t.Context(), url, store.Installation{Table: "task"})
	if err == nil || !strings.Contains(err.Error(), "attached is public.job, and would move from there to public.task") || !strings.Contains(err.Error(), "--move") {
		t.Errorf("error %v", err)
	}
	pgtest.Exec(t, admin, `drop table job`) // then there is nothing to move away from
	install(t, url, store.Installation{Table: "task"})
}
