package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"jobprogress/internal/pgtest"
)

// Pooler starts a PgBouncer before a database, for as long as the test, and returns the database's URL through it. mode is
// transaction or session; settings are lines of its section [pgbouncer].
func Pooler(t testing.TB, databaseURL, mode, settings string) string {
	t.Helper()
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		if binary = "/usr/sbin/pgbouncer"; exec.Command(binary, "--version").Run() != nil { // not in everybody's PATH
			t.Fatal("no pgbouncer here: install it (apt-get install pgbouncer, brew install pgbouncer)")
		}
	}
	port, err := pgtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "jobprogress-pgbouncer-") // not the test's, which is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	credential, err := pgtest.Unprivileged() // it refuses to run as root, too
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	config := fmt.Sprintf(`
[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
%s
`, u.Hostname(), portOf(u), u.User.Username(), password, port, mode, settings)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := credential; c != nil {
		for _, path := range []string{dir, file} {
			if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var log bytes.Buffer
	command := exec.Command(binary, file)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	command.Dir = dir
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		command.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		command.Process.Kill()
		<-ended
	})
	u.Host = fmt.Sprintf("127.0.0.1:%d", port)
	err = pgtest.Ready(context.Background(), u.String(), func() error {
		select {
		case <-ended:
			return errors.New("it ended")
		default:
			return nil
		}
	})
	if err != nil {
		command.Process.Kill()
		<-ended
		t.Fatalf("pgbouncer: %v: %s", err, log.Bytes())
	}
	return u.String()
}

func portOf(u *url.URL) string {
	if u.Port() == "" {
		return "5432"
	}
	return u.Port()
}
