package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"jobprogress/internal/store"
)

type versionCommand struct{}

func (*versionCommand) validate() []error { return nil }

func (*versionCommand) run(_ context.Context, stdout, _ io.Writer) error {
	version, revision, goVersion := "unknown", "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version, goVersion = info.Main.Version, info.GoVersion
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				revision = setting.Value
			}
		}
	}
	fmt.Fprintf(stdout, "jobprogress %s\nrevision %s\nSQL version %d\nbuilt with %s\n", version, revision, store.Version, goVersion)
	return nil
}
