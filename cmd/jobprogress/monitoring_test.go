package main

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobprogress/internal/pgtest"
)

// The table of metrics says what there is, and rules and dashboard ask for nothing else.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := serveForTest(t, url)
	s.exec(`alter table job disable trigger jobprogress_insert`) // a finding
	again := serveForTest(t, url)
	again.get("/api/jobs/x", "Authorization: ") // a refusal
	var metrics string
	again.eventually("complete", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, again.admin+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, metrics = again.do(r)
		return strings.Contains(metrics, "jobprogress_findings{") && strings.Contains(metrics, "jobprogress_requests_refused_total{")
	})
	kinds := make(map[string]string)
	for _, found := range regexp.MustCompile(`(?m)^# TYPE (jobprogress_\S+) (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		kinds[found[1]] = found[2]
	}
	rows := []string{}
	for _, found := range regexp.MustCompile(`(?m)^# HELP (jobprogress_\S+) (.*)$`).FindAllStringSubmatch(metrics, -1) {
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", found[1], kinds[found[1]], found[2]))
	}
	slices.Sort(rows)
	table := "| metric | kind | |\n|---|---|---|\n" + strings.Join(rows, "")

	const readme, begin, end = "monitoring/README.md", "writes from here -->\n", "<!-- to here -->\n"
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), begin)
	was, after, found := strings.Cut(rest, end)
	switch {
	case !found:
		t.Fatalf("%s has no marks", readme)
	case was == table:
	case os.Getenv("UPDATE") != "":
		if err := os.WriteFile(readme, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has\n%s\nand there is\n%s", readme, was, table)
	}

	for _, file := range []string{"monitoring/rules.yaml", "monitoring/dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		asked := regexp.MustCompile(`jobprogress_[a-z_]+`).FindAllString(string(text), -1)
		if len(asked) < 7 {
			t.Errorf("%s asks for %q only", file, asked)
		}
		for _, name := range asked {
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
			if kinds[name] == "" && kinds[base] != "histogram" {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
	}
}
