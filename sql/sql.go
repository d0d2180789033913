// Package sql holds the SQL that defines: what jobprogress adds to a database, as plain files that psql runs too.
package sql

import (
	"embed"
	"regexp"
	"strings"
)

//go:embed *.sql install/*.sql
var files embed.FS

// Install attaches the trigger and functions to the job table. It is one transaction and can be run again. Settings of the
// session steer it; its head names them.
var Install = read("install.sql")

// Preview is Install up to where the table is locked, in a transaction that is left open: what is attached can be read as
// it would be.
var Preview = Install[:strings.Index(Install, "-- How its changes are notified.")]

// Uninstall takes everything away that Install brought.
var Uninstall = read("uninstall.sql")

// Job is a stand-in for an application's job table, for demos and tests.
var Job = read("job.sql")

var include = regexp.MustCompile(`(?m)^\\ir (.+)$`)

// read reads a file as psql does, with the files that it includes.
func read(name string) string {
	text, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return include.ReplaceAllStringFunc(string(text), func(line string) string {
		return read(include.FindStringSubmatch(line)[1])
	})
}
