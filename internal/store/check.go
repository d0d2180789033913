package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
)

// Finding is something about a database that stands in the way of jobs being shown, or may.
type Finding struct {
	Code   string `json:"code"`   // stable: lower case and underscores
	Fault  bool   `json:"fault"`  // viewers, or writers, suffer from it now; else it may surprise
	What   string `json:"what"`   // a sentence
	Advice string `json:"advice"` // what to do, a sentence
}

// Roles are those whose rights Check looks at; "" is none.
type Roles struct{ Service, Worker string }

// Check looks at what is installed, and at what else in the database matters to it. It reads catalogs, and one job. It
// fails only if the database can't be asked.
func Check(ctx context.Context, conn *pgx.Conn, roles Roles) (Attachment, []Finding, error) {
	attachment, err := CheckInstalled(ctx, conn, false)
	if finding, ok := notInstalled(err); ok {
		return attachment, []Finding{finding}, nil
	}
	if err != nil {
		return attachment, nil, err
	}
	var findings []Finding
	oid, err := tableOID(ctx, conn, attachment.Table)
	if err != nil {
		return attachment, nil, err
	}
	args := pgx.NamedArgs{
		"table": attachment.Table, "oid": oid, "id": attachment.ID, "gate": attachment.Gate, "class": LockClass,
		"service": roles.Service, "worker": roles.Worker,
	}
	for _, c := range checks {
		rows, err := conn.Query(ctx, c.sql, args)
		if err != nil {
			return attachment, nil, fmt.Errorf("check %s: %w", c.Code, err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return attachment, nil, fmt.Errorf("check %s: %w", c.Code, err)
		}
		for _, what := range found {
			finding := c.Finding
			finding.What = what
			findings = append(findings, finding)
		}
	}
	columns, err := checkColumns(ctx, conn, attachment, oid)
	if err != nil {
		return attachment, nil, err
	}
	findings = append(findings, columns...)
	if _, err := CheckInstalled(ctx, conn, true); err != nil && !SessionEnded(err) && !conn.IsClosed() {
		findings = append(findings, Finding{"unreadable", true, fmt.Sprintf("Jobs can't be read: %s.", strings.TrimSuffix(err.Error(), ".")), "Mend what the error names, or install again with expressions that fit."})
	}
	return attachment, findings, ctx.Err()
}

// tableOID is that of the table of this qualified name; 0 if there is none. A role that may not use the schema can't cast the
// name to regclass.
func tableOID(ctx context.Context, conn *pgx.Conn, table string) (oid uint32, err error) {
	err = conn.QueryRow(ctx, `select coalesce(max(c.oid::bigint), 0) from pg_class as c join pg_namespace as n on n.oid = relnamespace
		where format('%I.%I', nspname, relname) = $1`, table).Scan(&oid)
	if err != nil {
		return 0, fmt.Errorf("check table: %w", err)
	}
	return oid, nil
}

// notInstalled makes a finding of an error of CheckInstalled.
func notInstalled(err error) (Finding, bool) {
	var version VersionError
	pg, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.As(err, &version) && version == errOutdated:
		return Finding{"outdated", true, "What is installed in the database is older than this program.", "Run jobprogress install."}, true
	case errors.As(err, &version):
		return Finding{"newer", true, "What is installed in the database is newer than this program.", "Upgrade the program, on each server."}, true
	case pg != nil && pg.Code == "3F000":
		return Finding{"not_installed", true, "jobprogress is not installed in this database.", "Run jobprogress install, or name another database."}, true
	case pg != nil && pg.Code == "42501":
		return Finding{"no_rights", true, fmt.Sprintf("This role may not read what is installed: %s.", pg.Message), "Run jobprogress install with --service-role, which grants the role what it needs."}, true
	}
	return Finding{}, false
}

// Unreachable makes a finding of an error of Connect.
func Unreachable(err error) Finding {
	if not, ok := errors.AsType[notPrimary](err); ok {
		return Finding{"not_primary", true, strings.ToUpper(not.Error()[:1]) + not.Error()[1:] + ".", "Jobs are shown from the primary only."}
	}
	return Finding{"unreachable", true, fmt.Sprintf("The database can't be reached: %s.", strings.TrimSuffix(err.Error(), ".")), "Check DATABASE_URL and LISTEN_DATABASE_URL, and that the database runs."}
}

// check finds something with a statement, which returns a sentence for each time.
type check struct {
	Finding
	sql string
}

// tables are the job table, its partitions, and children that inherit, with their triggers.
const tables = `
with recursive tables as (
  select nullif(@oid::oid, 0) as relation
  union
  select inhrelid from pg_inherits join tables on inhparent = relation
), triggers as (
  select pg_trigger.*, tgrelid = any (array(select relation from tables)) as here
  from pg_trigger
  where tgfoid = to_regproc('jobprogress.notify_job')
) `

var checks = []check{
	{Finding{Code: "table_missing", Fault: true, Advice: "Attach another one: jobprogress install --table."},
		`select format('The job table %s does not exist any more.', @table::text) where @oid::oid = 0`},
	{Finding{Code: "table_swapped", Fault: true, Advice: "Run jobprogress install: it attaches the table that has the name now."},
		tables + `select format('The triggers are on %s, and not on %s: the table was swapped.', tgrelid::regclass, @table::text)
		from triggers where not here and tgname = 'jobprogress' and tgparentid = 0`},
	{Finding{Code: "trigger_missing", Fault: true, Advice: "Run jobprogress install."},
		tables + `select format('Table %s has no trigger %s: its changes are seen late, by polling.', relation::regclass, wanted)
		from tables, unnest(array['jobprogress', 'jobprogress_insert']) as wanted
		where exists (select from pg_class where oid = relation and relkind <> 'f')
			and not exists (select from triggers where tgrelid = relation and tgname = wanted)`},
	{Finding{Code: "trigger_disabled", Fault: true, Advice: "alter table ... enable trigger ..., or run jobprogress install."},
		tables + `select format('Trigger %s on %s is disabled: changes are seen late, by polling.', tgname, tgrelid::regclass)
		from triggers where here and tgenabled = 'D'`},
	{Finding{Code: "trigger_outdated", Fault: true, Advice: "Run jobprogress install."},
		tables + `select format('Trigger %s on %s is not as this version makes it.', tgname, tgrelid::regclass)
		from triggers
		where here and (tgname not in ('jobprogress', 'jobprogress_insert')
			or tgtype <> case tgname when 'jobprogress' then 1 + 8 + 16 else 1 + 4 end
			or (tgqual is not null) <> (@gate = 'on')
			or tgqual is not null and pg_get_triggerdef(oid) not like '%' || @class::int || '%')`},
	{Finding{Code: "trigger_replica", Fault: true, Advice: "alter table ... enable always trigger ...; installing again keeps that."},
		tables + `select format('Trigger %s on %s fires for replicated changes only.', tgname, tgrelid::regclass)
		from triggers where here and tgenabled = 'R'`},
	{Finding{Code: "subscription", Fault: true, Advice: "alter table ... enable always trigger jobprogress, and jobprogress_insert; installing again keeps that."},
		tables + `select distinct format('A subscription writes to %s, and trigger %s does not fire for that.', tgrelid::regclass, tgname)
		from triggers join pg_subscription_rel on srrelid = tgrelid
		where here and tgenabled = 'O'`},
	{Finding{Code: "id_virtual", Fault: true, Advice: "Name another column with jobprogress install --id, or make it a stored one."},
		`select format('Column %I is a virtual generated column, which triggers do not see.', attname)
		from pg_attribute where attrelid = @oid::oid and attname = @id and attgenerated = 'v'`},
	{Finding{Code: "id_index", Fault: true, Advice: "create index on its id: without one, each look at a job reads all of it."},
		tables + `select format('Table %s has no index that begins with %I.', relation::regclass, @id::text)
		from tables join pg_attribute on attrelid = relation and attname = @id
		where exists (select from pg_class where oid = relation and relkind <> 'f') and not exists (
			select from pg_index where indrelid = relation and indkey[0] = attnum and indisvalid and indpred is null
		)`},
	{Finding{Code: "row_security", Fault: true, Advice: "Install as the table's owner or as a role with BYPASSRLS, and don't force row-level security on it."},
		`select format('Row-level security hides rows of %s from role %s, with whose rights jobs are read.', @table::text, rolname)
		from pg_class as c, pg_proc join pg_roles on pg_roles.oid = proowner
		where c.oid = @oid::oid and pg_proc.oid = to_regprocedure('jobprogress.snapshot(text[], text[], text[])') and relrowsecurity
			and not rolsuper and not rolbypassrls and (relforcerowsecurity or not pg_has_role(proowner, relowner, 'usage'))`},
	{Finding{Code: "no_rights", Fault: true, Advice: "Run jobprogress install with --service-role or --worker-role, which grant what is needed."},
		`select distinct case
			when to_regrole(quote_ident(role)) is null then format('Role %s does not exist.', role)
			else format('Role %s may not call %s.', role, f.oid::regprocedure)
		end
		from pg_proc as f
		join (values
			('snapshot', @service::text), ('sweep', @service), ('some_jobs', @service), ('lists', @service), ('attachment', @service), ('item', @worker)
		) as needed (name, role) on name = proname
		where pronamespace = to_regnamespace('jobprogress') and role <> '' and prosrc not like '%upgrade the server%'
			and (to_regrole(quote_ident(role)) is null or not has_schema_privilege(to_regrole(quote_ident(role)), 'jobprogress', 'usage')
				or not has_function_privilege(to_regrole(quote_ident(role)), f.oid, 'execute'))`},
	{Finding{Code: "revoked", Fault: true, Advice: "grant execute on it to public. The lock functions are not needed with the gate off."},
		`select format('Not everybody who writes may call %s, so updates of jobs fail.', needed::regprocedure)
		from unnest(array['pg_notify(text, text)', 'current_setting(text, boolean)', 'pg_try_advisory_lock(integer, integer)',
			'pg_advisory_unlock(integer, integer)']) with ordinality as f (needed, place)
		where not has_function_privilege('public', 'pg_catalog.' || needed, 'execute') and (@gate = 'on' or place < 3)`},
	{Finding{Code: "function_missing", Fault: true, Advice: "Run jobprogress install."},
		`select format('Function jobprogress.%s is missing.', wanted)
		from unnest(array['cut', 'has_items', 'is_bigint', 'is_id', 'is_uuid', 'item', 'items_of', 'json', 'lists', 'moment', 'notify_job',
			'progress_of', 'published', 'published_of', 'run_of', 'snapshot', 'some_jobs', 'sweep', 'unwatched']) as wanted
		where not exists (select from pg_proc where pronamespace = to_regnamespace('jobprogress') and proname = wanted)`},
	{Finding{Code: "item_log_missing", Fault: true, Advice: "Run jobprogress install."},
		`select 'Table jobprogress.item_log is missing, so items are not kept.' where to_regclass('jobprogress.item_log') is null`},
	{Finding{Code: "queue_usage", Fault: true, Advice: "End the session that listens and hangs: pg_stat_activity has it idle in transaction or busy since long ago. At 100 % transactions that notify fail."},
		`select format('The notification queue is %s %% full.', round(pg_notification_queue_usage() * 100)) where pg_notification_queue_usage() >= 0.5`},
	{Finding{Code: "lock_table", Fault: true, Advice: "Raise max_locks_per_transaction and restart. When it is full, updates of jobs fail, as much else does."},
		`select format('%s of about %s places of the lock table are taken.', taken, places)
		from (select count(*) as taken from pg_locks where not fastpath) as t,
			(select current_setting('max_locks_per_transaction')::bigint * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) as places) as p
		where taken > 0.8 * places`},
	{Finding{Code: "foreign_locks", Advice: "End that session if it is a transaction pooler's, and name a direct one in LISTEN_DATABASE_URL. While it lasts, writers of these jobs notify for nobody."},
		`select format('Session %s (%s) holds %s advisory locks of class %s, which are ours.', pid, coalesce(nullif(application_name, ''), 'unnamed'), count(*), @class::int)
		from pg_locks join pg_stat_activity using (pid)
		where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()) and granted and mode = 'ShareLock'
			and classid::bigint = @class::int and objsubid = 2 and application_name not like 'jobprogress%'
		group by pid, application_name`},
	{Finding{Code: "silenced", Advice: "alter role ... reset it, unless that is meant: changes by that role are found by polling, within 15 s."},
		`select format('%s is set for %s, so its changes are not notified.', setting, coalesce('role ' || setrole::regrole::text, 'everybody')
			|| case when setdatabase <> 0 then ' in this database' else '' end)
		from (select nullif(setrole, 0) as setrole, setdatabase, unnest(setconfig) as setting from pg_db_role_setting) as s
		where (setdatabase = 0 or setdatabase = (select oid from pg_database where datname = current_database()))
			and lower(setting) in ('jobprogress.notify=off', 'session_replication_role=replica')`},
	{Finding{Code: "publication", Advice: "Nothing to do here: our tables are not published. On the subscriber, enable always our triggers."},
		`select format('Publication %s is for all tables.', pubname) from pg_publication where puballtables`},
	{Finding{Code: "unlogged", Advice: "alter table ... set logged, if jobs must outlive a crash."},
		`select format('Table %s is unlogged: a crash of PostgreSQL empties it, and viewers see that the jobs are gone.', @table::text)
		from pg_class where oid = @oid::oid and relpersistence = 'u'`},
}

// checkColumns compares the columns that are read with what they were when jobprogress was installed.
func checkColumns(ctx context.Context, conn *pgx.Conn, a Attachment, table uint32) (findings []Finding, err error) {
	rows, err := conn.Query(ctx, `select attname, case nspname when 'pg_catalog' then format_type(atttypid, atttypmod) else format('%I.%I', nspname, typname) end
		from pg_attribute join pg_type on pg_type.oid = atttypid join pg_namespace on pg_namespace.oid = typnamespace
		where attrelid = $1 and attnum > 0 and not attisdropped`, table)
	if err != nil {
		return nil, fmt.Errorf("check columns: %w", err)
	}
	now := make(map[string]string)
	var name, typ string
	if _, err := pgx.ForEachRow(rows, []any{&name, &typ}, func() error { now[name] = typ; return nil }); err != nil {
		return nil, fmt.Errorf("check columns: %w", err)
	}
	if len(now) == 0 {
		return nil, nil // there is no such table
	}
	for name, then := range a.Columns {
		switch typ, ok := now[name]; {
		case !ok:
			findings = append(findings, Finding{"column_missing", true, fmt.Sprintf("Column %s, which is read, is not there any more: it was dropped or renamed.", name),
				"Run jobprogress install with what to read in its place: " + strings.Join(a.flags(name), ", ") + "."})
		case typ != then:
			findings = append(findings, Finding{"column_retyped", false, fmt.Sprintf("Column %s was of type %s when jobprogress was installed, and is %s.", name, then, typ),
				"Run jobprogress install: it checks that all rows can still be read."})
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.What, b.What) })
	return findings, nil
}

// CheckRows looks at some of the rows: what is read of them, and whether that makes sense.
func CheckRows(ctx context.Context, conn *pgx.Conn, a Attachment) (findings []Finding, err error) {
	jobs, err := sample(ctx, conn)
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return nil, nil // which is a finding of Check already
	}
	if err != nil {
		return nil, err
	}
	if indexed, err := ownerIndexed(ctx, conn); err != nil {
		return nil, err
	} else if !indexed {
		findings = append(findings, Finding{"owner_index", false, "No index begins with the owner, so each look for the jobs of an account reads the whole table.",
			fmt.Sprintf("Create an index on (%s), if you use lists.", a.expressions["owner"])})
	}
	found, owned, counted, begun, stale := 0, 0, 0, 0, 0
	statuses := make(map[job.Status]bool)
	for _, j := range jobs {
		if !j.Found {
			continue
		}
		found++
		if j.State.Account != "" {
			owned++
		}
		if j.State.Progress != (job.Progress{}) {
			counted++
		}
		switch j.State.Status {
		case job.Pending, job.Running, job.Completed, job.Failed:
		default:
			statuses[j.State.Status] = true
		}
		last := latest(j.StartedAt, j.CompletedAt)
		if last != nil && j.UpdatedAt != nil {
			begun++
			if last.Sub(*j.UpdatedAt) > time.Second {
				stale++
			}
		}
	}
	note := func(code, what, advice string) { findings = append(findings, Finding{code, false, what, advice}) }
	if found > 0 && owned == 0 {
		note("no_owner", fmt.Sprintf("None of %d jobs has an owner, so nobody may watch them.", found), "Name the expression for the owner: jobprogress install --owner.")
	}
	if found > 0 && counted == 0 {
		note("no_progress", fmt.Sprintf("None of %d jobs has a progress.", found), `Have the workers write {"total":100,"done":50}, or name the expression: jobprogress install --progress.`)
	}
	for status := range statuses {
		note("status", fmt.Sprintf("Status %q is shown as it is, and ends no stream.", status), "If it is an end, say so: jobprogress install --statuses cancelled=failed.")
	}
	if stale > begun/2 {
		note("updated_at", fmt.Sprintf("updated_at of %d of %d jobs is before they were started or completed, so it is not maintained.", stale, begun), "Have updates set it, or take it away: jobprogress install --updated-at null.")
	}
	return findings, nil
}

// accountInIndex is how a plan uses an index to find an account, which is a subquery there: $0, or InitPlan since PostgreSQL 17.
var accountInIndex = regexp.MustCompile(`"Index Cond": "([^"\\]|\\.)*(\$[0-9]|InitPlan)`)

// ownerIndexed reports whether the list of an account is read with an index. A role that may not read the table can't say.
func ownerIndexed(ctx context.Context, conn *pgx.Conn) (indexed bool, err error) {
	var query, plan string
	err = conn.QueryRow(ctx, `select replace(prosrc, '$1', '(select null::text)') from pg_proc where oid = to_regprocedure('jobprogress.published_of(text)')`).Scan(&query)
	if err != nil {
		return false, fmt.Errorf("check index: %w", err)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("check index: %w", err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, `set local enable_seqscan = off`); err != nil {
		return false, fmt.Errorf("check index: %w", err)
	}
	if err := tx.QueryRow(ctx, `explain (format json) `+query).Scan(&plan); err != nil {
		return true, nil
	}
	return accountInIndex.MatchString(plan), nil
}

// latest is the later of the two; nil if there is none.
func latest(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.After(*a) {
		return b
	}
	return a
}

// CheckListening finds out whether notifications reach a session of url: they don't through a transaction pooler.
func CheckListening(ctx context.Context, url string) []Finding {
	listener, err := Connect(ctx, url, "jobprogress check")
	if err != nil {
		return []Finding{Unreachable(err)}
	}
	defer listener.Close(context.WithoutCancel(ctx))
	other, err := Connect(ctx, url, "jobprogress check")
	if err != nil {
		return []Finding{Unreachable(err)}
	}
	defer other.Close(context.WithoutCancel(ctx))
	waiting, cancel := context.WithTimeout(ctx, StatementTimeout)
	defer cancel()
	const channel = "jobprogress_check"
	_, err = listener.Exec(waiting, `listen `+channel)
	if err == nil {
		_, err = other.Exec(waiting, `select pg_notify($1, 'look')`, channel)
	}
	if err == nil {
		_, err = listener.WaitForNotification(waiting)
	}
	if err != nil {
		return []Finding{{"not_heard", true, "What is notified does not arrive: something between here and PostgreSQL, such as a pooler in transaction mode, shares sessions.",
			"Name a direct session in LISTEN_DATABASE_URL, or a pooler in session mode."}}
	}
	return nil
}
