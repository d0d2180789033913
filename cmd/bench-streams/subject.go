//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"jobprogress/internal/auth"
	"jobprogress/internal/pgtest"
)

// subject is a server that is measured, in a process of its own.
type subject interface {
	address() string
	// requests are paths and tokens, one of each for each viewer.
	requests() []request
	// drive changes the jobs as the shape says for so long, and returns how often.
	drive(ctx context.Context, sh shape, d time.Duration) (changes int, err error)
	// memory is what the process has, of its own; collect has the garbage collected before, and memory given back.
	memory() (bytes int64, err error)
	collect(ctx context.Context) error
	processor() time.Duration
	stop() error
}

type request struct{ path, token string }

// process is the server's.
type process struct {
	command *exec.Cmd
	addr    string // host:port
	admin   string // URL, if the line has one
	output  io.ReadCloser
}

// startProcess starts a server and waits for the line of its output that names its address, in the first group.
func startProcess(command *exec.Cmd, pipe func() (io.ReadCloser, error), line *regexp.Regexp) (*process, error) {
	output, err := pipe()
	if err != nil {
		return nil, err
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command, output: output}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if found := line.FindStringSubmatch(lines.Text()); found != nil {
			p.addr = found[1]
			if len(found) > 2 {
				p.admin = found[2]
			}
			go io.Copy(io.Discard, output)
			return p, nil
		}
	}
	p.kill()
	return nil, errors.New("the server did not start")
}

func (p *process) kill() {
	p.command.Process.Kill()
	p.command.Wait()
}

func (p *process) address() string { return p.addr }

// memory is what the process has of its own: anonymous memory.
func (p *process) memory() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kilobytes int64
	_, err = fmt.Sscan(rest, &kilobytes)
	return kilobytes << 10, err
}

// tick is the unit of /proc/…/stat on Linux.
const tick = time.Second / 100

// processor is the processor time that the process has taken.
func (p *process) processor() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// service is jobprogress.
type service struct {
	*process
	shape shape
	pool  *pgxpool.Pool
	jobs  []string // those that change
	views []request
}

const secret = "a secret of at least thirty-two bytes"

// startService starts the server with a database of its own, which holds the jobs of the shape.
func (b *bench) startService(ctx context.Context, sh shape) (_ subject, err error) {
	name, err := pgtest.CreateInstalled(ctx, b.postgres.URL)
	if err != nil {
		return nil, err
	}
	databaseURL := pgtest.WithDatabase(b.postgres.URL, name)
	s := &service{shape: sh}
	if s.pool, err = pgxpool.New(ctx, databaseURL); err != nil {
		return nil, err
	}
	if err := s.insert(ctx); err != nil {
		return nil, fmt.Errorf("insert jobs: %w", err)
	}
	command := exec.Command(b.program, "serve", "--database-url", databaseURL, "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
		"--jwt-secret", secret, "--max-streams-per-account", "1000000", "--max-streams", "1000000")
	if sh.tls > 0 {
		command.Args = append(command.Args, "--tls-cert", b.certificate, "--tls-key", b.certificate)
	}
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	if s.process, err = startProcess(command, command.StderrPipe, regexp.MustCompile(`msg=serving addr=https?://(\S+) admin=(\S+)`)); err != nil {
		return nil, err
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		response, err := b.client.Get(sh.scheme() + s.addr + "/readyz")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return s, nil
		}
	}
	s.stop()
	return nil, errors.New("the server is not ready in time")
}

// insert inserts the jobs, each of an account of its own, or all of one if they are shown together.
func (s *service) insert(ctx context.Context) error {
	mint := auth.JWT{Keys: auth.Secret(secret), Claim: "sub"}
	batch := &pgx.Batch{}
	batch.Queue(`alter table job drop constraint job_account_id_fkey`) // the accounts are nobody's
	account := uuid.NewString()
	together := make(url.Values)
	for range s.shape.jobs {
		if !s.shape.together {
			account = uuid.NewString()
		}
		id := uuid.NewString()
		s.jobs = append(s.jobs, id)
		together.Add("id", id)
		batch.Queue(`insert into job (id, account_id, type, status, progress) values ($1, $2, 'matching', 'running', '{"total": 9}')`, id, account)
		token, err := mint.Mint(account, time.Hour)
		if err != nil {
			return err
		}
		for range s.shape.viewers {
			s.views = append(s.views, request{"/api/jobs/" + id + "/progress", token})
		}
	}
	if s.shape.together {
		s.views = slices.Repeat([]request{{"/api/jobs/progress?" + together.Encode(), s.views[0].token}}, s.shape.viewers)
	}
	return s.pool.SendBatch(ctx, batch).Close()
}

func (s *service) requests() []request { return s.views }

// writers is how many connections change jobs.
const writers = 4

func (s *service) drive(ctx context.Context, sh shape, d time.Duration) (int, error) {
	return drive(ctx, sh, d, func(i int) error {
		now := time.Now().UnixMicro()
		if sh.items > 0 {
			_, err := s.pool.Exec(ctx, `select jobprogress.item($1, 'item' || ($2::int * $3::int + i) % 200, 'song', 'in_progress', count => $4::bigint) from generate_series(1, $3) as i`,
				s.jobs[0], i, sh.items, now)
			return err
		}
		_, err := s.pool.Exec(ctx, `update job set progress = jsonb_build_object('total', 9e15::bigint, 'done', $2::bigint) where id = $1`, s.jobs[i%len(s.jobs)], now)
		return err
	})
}

// collect has the garbage collected, as it is within two minutes anyway, and waits until the server has given back what is free.
func (s *service) collect(ctx context.Context) error {
	for range collections {
		response, err := http.Get(s.admin + "/debug/pprof/heap?gc=1")
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
	}
	pause(ctx, 12*time.Second)
	return nil
}

// drive calls change at the rate of the shape, from several goroutines.
func drive(ctx context.Context, sh shape, d time.Duration, change func(i int) error) (changes int, err error) {
	ticks := make(chan int)
	failed := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for i := range ticks {
				err = errors.Join(err, change(i))
			}
			failed <- err
		}()
	}
	interval := time.Second / time.Duration(sh.rate)
	began := time.Now()
	for time.Since(began) < d && ctx.Err() == nil {
		pause(ctx, time.Until(began.Add(time.Duration(changes)*interval)))
		ticks <- changes
		changes++
	}
	close(ticks)
	for range writers {
		err = errors.Join(err, <-failed)
	}
	return changes, err
}

func (s *service) stop() error {
	s.kill()
	s.pool.Close()
	return nil
}

// handler is the least that a handler can do.
type handler struct {
	*process
	shape  shape
	client *http.Client
}

func (b *bench) startHandler(_ context.Context, sh shape) (subject, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "handler")
	if sh.tls > 0 {
		command.Args = append(command.Args, b.certificate)
	}
	p, err := startProcess(command, command.StdoutPipe, regexp.MustCompile(`serving (\S+)`))
	if err != nil {
		return nil, err
	}
	return &handler{p, sh, b.client}, nil
}

func (h *handler) requests() (requests []request) {
	jobs := h.shape.jobs
	if h.shape.together {
		jobs = 1
	}
	for i := range jobs {
		for range h.shape.viewers {
			requests = append(requests, request{path: "/" + strconv.Itoa(i)})
		}
	}
	return requests
}

func (h *handler) drive(ctx context.Context, sh shape, d time.Duration) (int, error) {
	jobs := sh.jobs
	if sh.together {
		jobs = 1
	}
	return drive(ctx, sh, d, func(i int) error {
		return h.post("/"+strconv.Itoa(i%jobs), url.Values{"done": {strconv.FormatInt(time.Now().UnixMicro(), 10)}, "times": {strconv.Itoa(max(sh.items, 1))}})
	})
}

func (h *handler) collect(context.Context) error {
	for range collections {
		if err := h.post("/collect", nil); err != nil {
			return err
		}
	}
	return nil
}

func (h *handler) post(path string, form url.Values) error {
	response, err := h.client.PostForm(h.shape.scheme()+h.addr+path, form)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func (h *handler) stop() error {
	h.kill()
	return nil
}
