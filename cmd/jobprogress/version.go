package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"jobprogress/internal/store"
)

type versionCommand struct{}

func (*versionCommand) validate() []error { return nil }

func (*versionCommand) run(_ context.Context, stdout, _ io.Writer) error {
	b := readBuild()
	fmt.Fprintf(stdout, "jobprogress %s\nrevision %s\nSQL version %d\nbuilt with %s\n", b.version, b.revision, store.Version, b.goVersion)
	return nil
}

// build is what this program was built from.
type build struct{ version, revision, goVersion string }

func readBuild() build {
	b := build{"unknown", "unknown", "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.version, b.goVersion = info.Main.Version, info.GoVersion
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				b.revision = setting.Value
			}
		}
	}
	return b
}

// newBuildInfo is a metric that names the build.
func newBuildInfo() prometheus.Collector {
	b := readBuild()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "jobprogress_build_info",
		Help:        "Always 1; its labels name the build.",
		ConstLabels: prometheus.Labels{"version": b.version, "revision": b.revision, "goversion": b.goVersion, "sql_version": strconv.Itoa(store.Version)},
	}, func() float64 { return 1 })
}
