package trust

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"jobprogress/internal/pgtest"
	"jobprogress/internal/pgtest/network"
)

// replica is a server: a process of its own, with a link to the database and one to its viewers.
type replica struct {
	name       int
	binary     string
	args       []string
	addr       string
	toDatabase *network.Link
	toViewers  *network.Link

	fault sync.Mutex // held by the fault that has it in hand

	log     tail
	process *exec.Cmd
	ended   chan struct{} // closed when the process has
}

// secret signs the tokens of a run.
const secret = "a secret of at least thirty-two bytes"

// readyTimeout bounds the start of a server, and stopTimeout its end; both are generous.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

func newReplica(name int, binary, databaseURL string, backstop time.Duration) (*replica, error) {
	port, err := pgtest.FreePort()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprint("127.0.0.1:", port)
	r := &replica{name: name, binary: binary, addr: addr}
	if r.toDatabase, err = network.NewLink(network.Host(databaseURL)); err != nil {
		return nil, err
	}
	if r.toViewers, err = network.NewLink(addr); err != nil {
		return nil, err
	}
	r.args = []string{"serve",
		"--database-url", r.toDatabase.Through(databaseURL), "--addr", addr, "--admin-addr", "127.0.0.1:0",
		"--jwt-secret", secret, "--max-streams-per-account", "100000",
		"--ping-interval", "500ms", "--write-timeout", "2s", "--lame-duck", "500ms", "--drain-timeout", "3s", "--backstop-interval", backstop.String(),
	}
	return r, nil
}

// start starts the process, and returns as soon as it runs; it need not be ready.
func (r *replica) start() error {
	r.process = exec.Command(r.binary, r.args...)
	r.process.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	r.process.Stdout, r.process.Stderr = &r.log, &r.log
	r.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.process.Start(); err != nil {
		return fmt.Errorf("start replica %d: %w", r.name, err)
	}
	r.ended = make(chan struct{})
	go func(process *exec.Cmd, ended chan struct{}) {
		process.Wait()
		close(ended)
	}(r.process, r.ended)
	return nil
}

func (r *replica) signal(s syscall.Signal) { r.process.Process.Signal(s) }

// stop ends the process as an operator would, and returns what is wrong with how it ends.
func (r *replica) stop() error {
	if err := r.answers(context.Background(), "/healthz", ""); err != nil {
		return err // before it has begun to listen for signals, one would kill it
	}
	r.signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(stopTimeout):
		r.signal(syscall.SIGKILL)
		<-r.ended
		return fmt.Errorf("replica %d does not stop:\n%s", r.name, r.log.String())
	}
	if code := r.process.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("replica %d stops with exit code %d:\n%s", r.name, code, r.log.String())
	}
	return nil
}

func (r *replica) kill() {
	r.signal(syscall.SIGKILL)
	<-r.ended
}

// close ends all of it.
func (r *replica) close() {
	if r.process != nil {
		r.kill()
	}
	r.toDatabase.Close()
	r.toViewers.Close()
}

// ready waits until the server is.
func (r *replica) ready(ctx context.Context) error { return r.answers(ctx, "/readyz", "ready") }

// live waits until the server receives the database.
func (r *replica) live(ctx context.Context) error { return r.answers(ctx, "/readyz", "ready\n") }

// isReady reports whether the server says so now.
func (r *replica) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status, _, _ := r.get(ctx, "/readyz")
	return status == http.StatusOK
}

// answers waits until the server answers 200 there, with a text that begins so.
func (r *replica) answers(ctx context.Context, path, begins string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		status, body, err := r.get(ctx, path)
		if err == nil && status == http.StatusOK && strings.HasPrefix(body, begins) {
			return nil
		}
		select {
		case <-r.ended:
			return fmt.Errorf("replica %d has ended:\n%s", r.name, r.log.String())
		case <-ctx.Done():
			return fmt.Errorf("replica %d does not answer %s with 200 %q, but with %d %q, error %v:\n%s", r.name, path, begins, status, body, err, r.log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// get asks the server itself, not over the viewers' link.
func (r *replica) get(ctx context.Context, path string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2*tailSize {
		t.text = bytes.Clone(t.text[len(t.text)-tailSize:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
