package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"jobprogress/internal/pgtest"
	"jobprogress/sql"
)

// manual is the README, whose commands are run as they stand there, but for the names that a reader replaces.
type manual struct {
	t       *testing.T
	dir     string   // with bin/jobprogress
	left    []string // to be run
	ran     []string
	exports []string
	replace []string // old, new
}

// commandsOf are the lines of the README that are commands of ours.
func commandsOf(readme string) (commands []string) {
	for _, found := range regexp.MustCompile("(?m)(?:^|^\\$ |`)((?:export|curl|bin/jobprogress) [^`\n]+)").FindAllStringSubmatch(readme, -1) {
		if !strings.Contains(found[1], "COMMAND") && found[1] != "curl -N" {
			commands = append(commands, found[1])
		}
	}
	return commands
}

// command takes the line that begins like this off those that are left, and makes it ready to run.
func (m *manual) command(beginning string) *exec.Cmd {
	m.t.Helper()
	for i, line := range m.left {
		if strings.HasPrefix(line, beginning) {
			m.left, m.ran = append(m.left[:i], m.left[i+1:]...), append(m.ran, line)
			line = strings.NewReplacer(m.replace...).Replace(line)
			if strings.HasPrefix(line, "export") {
				m.exports = append(m.exports, line)
				return nil
			}
			c := exec.Command("sh", "-c", strings.Join(append(m.exports, "exec "+line), "\n"))
			c.Dir = m.dir
			return c
		}
	}
	m.t.Fatalf("the README has no line %q", beginning)
	return nil
}

// says runs a command that ends, and looks for a text in what it says.
func (m *manual) says(beginning, want string) string {
	m.t.Helper()
	out, err := m.command(beginning).CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		m.t.Fatalf("%s…: %v, want %q:\n%s", beginning, err, want, out)
	}
	return strings.TrimSpace(string(out))
}

// said is what a running command has said.
type said struct {
	t     *testing.T
	lines chan string
}

func start(t *testing.T, c *exec.Cmd) said {
	t.Helper()
	o := said{t, make(chan string, 1000)}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			o.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		c.Process.Kill()
		<-read
		c.Wait()
	})
	return o
}

// until waits for a line that contains the text.
func (o said) until(text string) {
	o.t.Helper()
	for timeout := time.After(deadline); ; {
		select {
		case line := <-o.lines:
			if strings.Contains(line, text) {
				return
			}
		case <-timeout:
			o.t.Fatalf("no line %q", text)
		}
	}
}

func TestCommandsOfTheREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := &manual{t: t, dir: t.TempDir(), left: commandsOf(string(text))}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(m.dir, "bin", "jobprogress"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	owner := pgtest.NewEmpty(t)
	db := pgtest.Pool(t, owner)
	do := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	unique := strings.ToLower(rand.Text()[:8])
	service, worker := "jobprogress_"+unique, "worker_"+unique
	for _, role := range []string{service, worker} {
		do(`create role ` + role + ` login password '` + role + `'`)
		t.Cleanup(func() { db.Exec(context.Background(), `drop owned by `+role+`; drop role `+role) })
	}
	do(`create schema app; set search_path = app;` + sql.Job + `reset search_path`)
	const id = "5f0c3a52-8f0e-4a52-9d2e-0f6f3c1d7e11"
	do(`insert into app.job (id, account_id, type, status, progress) values ('` + id + `', '` + ada + `', 'matching', 'running', '{"total": 10, "done": 4}')`)
	port, err := pgtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	serving := fmt.Sprintf("127.0.0.1:%d", port)

	m.replace = []string{
		"postgres://owner@db/app", "'" + owner + "'",
		"postgres://jobprogress@db/app", "'" + pgtest.WithRole(owner, service) + "'",
		"--service-role jobprogress --worker-role worker", "--service-role " + service + " --worker-role " + worker,
		"JOBPROGRESS_JWT_SECRET=…", "JOBPROGRESS_JWT_SECRET='" + secret + "'",
		"localhost:8080", serving,
		"5f0c…", id,
		"/ID/", "/" + id + "/",
		"https://app.example.com", "http://" + serving,
	}
	m.command("export DATABASE_URL=postgres://owner")
	m.says("bin/jobprogress install --table", "jobprogress is attached to table app.job")
	m.exports = []string{fmt.Sprintf("export JOBPROGRESS_ADDR=%s JOBPROGRESS_ADMIN_ADDR=127.0.0.1:0 JOBPROGRESS_PING_INTERVAL=1s JOBPROGRESS_URL=http://%[1]s", serving)}
	m.command("export DATABASE_URL=postgres://jobprogress")
	m.says("bin/jobprogress check", "Nothing is wrong")

	serve := m.command("bin/jobprogress serve")
	serve.Stderr = os.Stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		serve.Process.Signal(os.Interrupt)
		serve.Wait()
	})
	s := &server{t: t, url: "http://" + serving, client: http.DefaultClient}
	s.eventually("serving", func() bool {
		response, err := http.Get(s.url + "/readyz")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
	token := m.says("bin/jobprogress token "+ada, "eyJ")
	m.exports = append(m.exports, "export JOBPROGRESS_TOKEN="+token)
	m.replace = append(m.replace, "eyJ…", token, "$TOKEN", token, "--token …", "--token "+token)
	m.says("bin/jobprogress check --url", "ping after")

	list := m.command("bin/jobprogress watch --token")
	lines := start(t, list)
	lines.until("progress 4/10")
	item := regexp.MustCompile(`(?m)^select jobprogress\.item\(.*`).FindString(string(text))
	do(`set role ` + worker + `; ` + strings.NewReplacer("job_id", "'"+id+"'", "item_id", "'s1'").Replace(item) + ` reset role`)
	lines.until("Artist – Title")
	one := start(t, m.command("bin/jobprogress watch "+id))
	one.until("progress 4/10")
	curl := start(t, m.command("curl -N"))
	curl.until(`"label":"Artist – Title"`)
	do(`update app.job set status = 'completed'`)
	lines.until("status completed")
	one.until("status completed")
	curl.until(`{"type":"status","status":"completed"}`)
	list.Process.Signal(os.Interrupt)
	for _, line := range m.left {
		// What stands in a sentence may be the beginning of a command, or one that stands somewhere else, too.
		if !slices.ContainsFunc(m.ran, func(ran string) bool { return strings.HasPrefix(ran, line) }) {
			t.Errorf("nothing runs %q", line)
		}
	}
}
