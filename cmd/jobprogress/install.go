package main

import (
	"context"
	"fmt"
	"io"

	"jobprogress/internal/store"
)

type installCommand struct {
	database
	Table       string `env:"JOBPROGRESS_TABLE" placeholder:"TABLE" help:"The job table, schema-qualified or found by search_path. Default: the one attached, at first job."`
	ServiceRole string `env:"JOBPROGRESS_SERVICE_ROLE" placeholder:"ROLE" help:"Role that serve connects as: may read the published state of jobs."`
	WorkerRole  string `env:"JOBPROGRESS_WORKER_ROLE" placeholder:"ROLE" help:"Role that workers connect as: may call jobprogress.item."`
	Gate        string `env:"JOBPROGRESS_GATE" default:"" enum:",on,off" help:"on or off; off has every change notified, also of jobs that nobody watches: for listeners of your own. Commits that notify wait for one another, so this costs writers most of their speed where many write at once; README.md has figures. Default: as it was, at first on."`
	Print       bool   `help:"Print the SQL instead of running it."`
}

func (c *installCommand) run(ctx context.Context, stdout, _ io.Writer) error {
	installation := store.Installation{Table: c.Table, ServiceRole: c.ServiceRole, WorkerRole: c.WorkerRole, Gate: c.Gate}
	if c.Print {
		_, err := io.WriteString(stdout, installation.SQL())
		return err
	}
	if err := store.Install(ctx, c.DatabaseURL, installation); err != nil {
		return err
	}
	attached, err := store.Attached(ctx, c.DatabaseURL)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "jobprogress is attached to table %s\n", attached)
	return nil
}
