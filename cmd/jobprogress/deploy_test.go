package main

import (
	"os"
	"path/filepath"
	"regexp"
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
			// Those of the proxy and of the demo are not ours.
			set := regexp.MustCompile(`\b(LISTEN_)?DATABASE_URL\w*|\bJOBPROGRESS_\w+`).FindAllString(string(text), -1)
			if len(set) == 0 {
				t.Error("it sets nothing")
			}
			unknown, err := unknownVariables(set)
			if err != nil || len(unknown) > 0 && file != "../../compose.yaml" {
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
			lameDuck := serve.LameDuck
			if own := regexp.MustCompile(`LAME_DUCK.*\n\s+value: (\w+)`).FindStringSubmatch(string(text)); own != nil {
				lameDuck, _ = time.ParseDuration(own[1])
			}
			if wait := time.Duration(seconds) * time.Second; wait <= lameDuck+serve.DrainTimeout {
				t.Errorf("killed after %s, and it may take %s", wait, lameDuck+serve.DrainTimeout)
			}
		})
	}
}
