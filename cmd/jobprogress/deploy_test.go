package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"
)

// The files for operators set what there is to set, and wait for as long as the server takes to stop.
func TestDeployFiles(t *testing.T) {
	command, err := parse([]string{"serve", "--jwt-secret", secret}, noEnv, os.Stdout, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	serve := command.(*serveCommand)
	for file, killed := range map[string]string{
		"deploy/jobprogress.service": `TimeoutStopSec=(\d+)`,
		"deploy/kubernetes.yaml":     `terminationGracePeriodSeconds: (\d+)`,
		"../../compose.yaml":         `stop_grace_period: (\d+)s`,
		"deploy/Dockerfile":          "",
	} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			settings := regexp.MustCompile(`(?m)(^|\s)#.*`).ReplaceAllString(string(text), "") // without its comments
			set := regexp.MustCompile(`\b(LISTEN_)?DATABASE_URL\w*|\bJOBPROGRESS_\w+`).FindAllString(settings, -1)
			if len(set) == 0 {
				t.Error("it sets nothing")
			}
			unknown, err := unknownVariables(set)
			unknown = slices.DeleteFunc(unknown, func(name string) bool { return name == "JOBPROGRESS_SITE" || name == "JOBPROGRESS_UPSTREAMS" }) // of the proxy
			if err != nil || len(unknown) > 0 {
				t.Errorf("there is no setting %v, %v", unknown, err)
			}
			if killed == "" {
				return
			}
			found := regexp.MustCompile(killed).FindStringSubmatch(string(text))
			if found == nil {
				t.Fatalf("it has no %s", killed)
			}
			seconds, _ := strconv.Atoi(found[1])
			stops := time.Duration(0)
			for name, standard := range map[string]time.Duration{"LAME_DUCK": serve.LameDuck, "DRAIN_TIMEOUT": serve.DrainTimeout} {
				if own := regexp.MustCompile(name + `\s+value: (\w+)`).FindStringSubmatch(settings); own != nil {
					standard, _ = time.ParseDuration(own[1])
				}
				stops += standard
			}
			if wait := time.Duration(seconds) * time.Second; wait <= stops {
				t.Errorf("killed after %s, and it may take %s", wait, stops)
			}
		})
	}
}
