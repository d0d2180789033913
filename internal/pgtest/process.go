package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server from binaries on this machine, in a directory of its own.
type process struct {
	bin, dir   string
	port       int
	settings   []string
	credential *syscall.Credential // of the user postgres when we are root, which PostgreSQL refuses to run as
	leashes    []*os.File          // processes that hold the other end stop when these are closed, also by our death
}

// leash runs PostgreSQL for as long as its standard input is open, and then removes the directory: so nothing is left
// behind even if we are killed.
const leash = `
dir=$1; shift
"$@" >>"$dir/log" 2>&1 &
cat
kill -INT $! 2>/dev/null
wait
rm -rf "$dir"
`

func startProcess(ctx context.Context, settings []string) (*Server, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	p := &process{bin: bin, settings: settings}
	if p.port, err = FreePort(); err != nil {
		return nil, err
	}
	if p.credential, err = Unprivileged(); err != nil {
		return nil, err
	}
	password := rand.Text()
	if err := p.initialize(ctx, password); err != nil {
		os.RemoveAll(p.dir)
		return nil, err
	}
	if err := p.resume(ctx); err != nil {
		os.RemoveAll(p.dir)
		return nil, err
	}
	s := &Server{
		URL:    fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/postgres?sslmode=disable", password, p.port),
		From:   "PostgreSQL in " + bin,
		engine: p,
	}
	if err := Ready(ctx, s.URL, p.failed); err != nil {
		p.stop()
		return nil, err
	}
	return s, nil
}

// findBinaries returns the directory that holds initdb and postgres: TEST_POSTGRES_BIN, if it is set.
func findBinaries(ctx context.Context) (string, error) {
	if dir := os.Getenv("TEST_POSTGRES_BIN"); dir != "" {
		_, err := os.Stat(filepath.Join(dir, "initdb"))
		return dir, err
	}
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // Fedora and its kin
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // the patterns are good
		slices.Reverse(found)              // the newest version first
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if exists(filepath.Join(dir, "initdb")) && exists(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("initdb and postgres are neither where pg_config says, nor in PATH, nor in the usual places")
}

// Program is the path of a program of PostgreSQL on this machine, pgbench for example.
func Program(ctx context.Context, name string) (string, error) {
	if dir, err := findBinaries(ctx); err == nil {
		if path := filepath.Join(dir, name); exists(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: install PostgreSQL", err)
	}
	return path, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Unprivileged is the user postgres when we are root, as whom neither PostgreSQL nor PgBouncer runs; else nil.
func Unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // numbers on every Unix
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (p *process) initialize(ctx context.Context, password string) (err error) {
	if p.dir, err = os.MkdirTemp("", "jobprogress-postgres-"); err != nil {
		return err
	}
	passwordFile := filepath.Join(p.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return err
	}
	if c := p.credential; c != nil {
		for _, path := range []string{p.dir, passwordFile} {
			if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
				return err
			}
		}
	}
	initdb := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"),
		"--pgdata", p.data(), "--username", "postgres", "--pwfile", passwordFile,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	initdb.Dir = p.dir // the present one may be closed to the user postgres
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: p.credential}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (p *process) data() string { return filepath.Join(p.dir, "data") }

func (p *process) resume(context.Context) error {
	stdin, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	args := append([]string{"-c", leash, "sh", p.dir, filepath.Join(p.bin, "postgres"), "-D", p.data(),
		"-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}, p.settings...)
	sh := exec.Command("sh", args...)
	sh.Dir = p.dir
	sh.Stdin = stdin
	sh.SysProcAttr = &syscall.SysProcAttr{
		Credential: p.credential,
		Setpgid:    true, // an interrupt from the terminal is for us
	}
	if err := sh.Start(); err != nil {
		hold.Close()
		return fmt.Errorf("start postgres: %w", err)
	}
	go sh.Wait()
	p.leashes = append(p.leashes, hold)
	return nil
}

// failed says why the server did not start, once it is known.
func (p *process) failed() error {
	log, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err == nil && bytes.Contains(log, []byte("FATAL:")) && !bytes.Contains(log, []byte("starting up")) {
		return fmt.Errorf("postgres did not start: %s", bytes.TrimSpace(log))
	}
	return nil
}

func (p *process) halt(ctx context.Context, immediate bool) error {
	pidFile := filepath.Join(p.data(), "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	signal := syscall.SIGINT // "fast"
	if immediate {
		signal = syscall.SIGQUIT
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	return gone(ctx, pidFile)
}

func (p *process) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	// The last one holds the server, those before it only a directory that the server must not miss.
	for _, l := range slices.Backward(p.leashes) {
		l.Close()
		if err := gone(ctx, p.dir); err != nil {
			return err
		}
	}
	return nil
}

// gone waits until there is no such file.
func gone(ctx context.Context, path string) error {
	for {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop postgres: %s is still there", path)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
