package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/store"
	"jobprogress/sql"
)

type prepareCommand struct{}

func (prepareCommand) Run(s *settings, r *run) error { return prepare(r.ctx, s.DatabaseURL) }

// prepare makes a database ready: a job table, the application's own or else the stand-in, with jobprogress attached, and
// the job that is moved by hand.
func prepare(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, `select to_regclass('job') is not null`).Scan(&exists); err != nil {
		return fmt.Errorf("look for table job: %w", err)
	}
	if !exists {
		if _, err := conn.PgConn().Exec(ctx, sql.Job).ReadAll(); err != nil {
			return fmt.Errorf("create table job: %w", err)
		}
	}
	if err := store.Install(ctx, databaseURL, store.Installation{Table: "job"}); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, insertByHand, byHand, accounts[0].ID); err != nil {
		return fmt.Errorf("insert job: %w", err)
	}
	return nil
}

type stepCommand struct{}

func (stepCommand) Run(s *settings, r *run) error {
	conn, err := pgx.Connect(r.ctx, s.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(r.ctx))
	var done, status string
	if err := conn.QueryRow(r.ctx, moveByHand+` returning progress ->> 'done', status::text`).Scan(&done, &status); err != nil {
		return fmt.Errorf("move job (--database-url names the demo's database, as it printed it): %w", err)
	}
	fmt.Printf("%s of 10, %s\n", done, status)
	return nil
}

// byHand is a job that no worker works on, so that it can be moved with psql.
const byHand = "11111111-1111-4111-8111-111111111111"

const insertByHand = `
insert into job (id, account_id, type, status, progress, started_at)
values ($1, $2, 'matching', 'running', '{"total": 10, "done": 0, "message": "Waits for you: move it with psql"}', now())
on conflict (id) do update set status = 'running', progress = excluded.progress, error = null, completed_at = null, started_at = now(), created_at = now()`

// moveByHand moves it by one step. The tenth ends it, and the one after starts it again.
const moveByHand = `update job set (status, progress, started_at, completed_at, updated_at) =
  (select case n when 10 then 'completed' else 'running' end::job_status,
          jsonb_build_object('total', 10, 'done', n, 'succeeded', n, 'message', 'Moved with psql'),
          case n when 1 then now() else started_at end, case n when 10 then now() end, now()
     from (select (progress->>'done')::int % 10 + 1 as n) as step)
where id = '` + byHand + `'`
