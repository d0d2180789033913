// Package sql holds the SQL that defines: what jobprogress adds to a database, as plain files that psql runs too.
package sql

import _ "embed"

// Install attaches the trigger and functions to the job table. It is one transaction and can be run again.
// The settings jobprogress.job_table, jobprogress.service_role and jobprogress.worker_role of the session steer it.
//
//go:embed install.sql
var Install string

// Uninstall takes everything away that Install brought.
//
//go:embed uninstall.sql
var Uninstall string

// Job is a stand-in for an application's job table, for demos and tests.
//
//go:embed job.sql
var Job string
