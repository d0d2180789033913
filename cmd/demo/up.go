package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"jobprogress/internal/pgtest"
)

type upCommand struct {
	Rate float64 `default:"3" help:"Items a second, of each job."`
}

// stopTimeout is how long a child may take to end before it is killed: longer than a server drains.
const stopTimeout = 12 * time.Second

func (u *upCommand) Run(s *settings, r *run) error {
	if s.JWTSecret == "" {
		s.JWTSecret = rand.Text() + rand.Text()
	}
	if s.DatabaseURL == "" {
		fmt.Println("Starting a throwaway PostgreSQL …")
		database, err := pgtest.StartOwn(r.ctx, func(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) })
		if err != nil {
			return err
		}
		defer database.Stop()
		fmt.Printf("  %s\n", database.From)
		s.DatabaseURL, s.throwaway = database.URL, true
	}
	fmt.Println("Attaching jobprogress, and starting the server and two workers …")
	if err := prepare(r.ctx, s.DatabaseURL); err != nil {
		return err
	}
	program, err := jobprogress()
	if err != nil {
		return err
	}

	// The children end before the database does, the workers with a last word about their jobs.
	g, ctx := errgroup.WithContext(r.ctx)
	// What the caller has set for a jobprogress of their own is not for these.
	environment := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "JOBPROGRESS_") || strings.HasPrefix(v, "LISTEN_DATABASE_URL=")
	})
	environment = append(environment, "DATABASE_URL="+s.DatabaseURL, "JOBPROGRESS_JWT_SECRET="+s.JWTSecret)
	log, logEnd := io.Pipe()
	g.Go(func() error {
		defer logEnd.Close()
		return child(ctx, environment, logEnd, program, "serve", "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--allowed-origins="+s.AllowedOrigins,
			"--ping-interval", "5s") // a page behind Vite's proxy sees an end by their absence
	})
	serverURL, err := serving(log)
	if err != nil {
		return errors.Join(err, g.Wait())
	}
	for _, a := range accounts {
		g.Go(func() error {
			return child(ctx, environment, io.Discard, program, "simulate", "--account", a.ID, "--rate", fmt.Sprint(u.Rate), "--parallel", "2", "--failure-rate", "0.1")
		})
	}
	g.Go(func() error { return servePage(ctx, s, serverURL, printUsage) })
	return g.Wait()
}

// jobprogress finds the program: it is built beside this one.
func jobprogress() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	program := filepath.Join(filepath.Dir(self), "jobprogress")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("find jobprogress beside demo (make build puts both in bin/): %w", err)
	}
	return program, nil
}

// leash runs a program until its standard input is closed, so that nothing is left behind even if we are killed.
const leash = `exec 3<&0; (cat <&3; kill -INT $$) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-`

// child runs the program until ctx ends. What it logs goes to log.
func child(ctx context.Context, environment []string, log io.Writer, program string, args ...string) error {
	c := exec.CommandContext(ctx, "sh", append([]string{"-c", leash, "sh", program}, args...)...)
	if _, err := c.StdinPipe(); err != nil {
		return fmt.Errorf("jobprogress %s: %w", args[0], err)
	}
	c.Env = environment
	c.Stderr = log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}               // an interrupt from the terminal is for us, who end things in order
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // after SIGTERM, a server would wait for a load balancer
	c.WaitDelay = stopTimeout
	err := c.Run()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("jobprogress %s ended: %w", args[0], err)
}

var servingLine = regexp.MustCompile(`msg=serving addr=(\S+)`)

// serving reads the server's log up to when it is live, and prints what comes after. It returns the server's
// address.
func serving(log io.Reader) (url string, err error) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if found := servingLine.FindStringSubmatch(lines.Text()); found != nil {
			url = found[1]
			continue
		}
		if url != "" && strings.Contains(lines.Text(), `msg="bus live"`) {
			go func() {
				for lines.Scan() {
					fmt.Fprintln(os.Stderr, lines.Text())
				}
			}()
			return url, nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return "", errors.New("jobprogress serve did not start")
}

func printUsage(s *settings, page string) error {
	token, err := s.jwt().Mint(accounts[0].ID, tokenTTL)
	if err != nil {
		return err
	}
	ending := "Ctrl-C ends it all and leaves nothing behind."
	if !s.throwaway {
		ending = "Ctrl-C ends it all. The jobs stay in your database, and jobprogress stays attached."
	}
	fmt.Printf(`
The page:           %s/

The job on it that waits for you, as a stream:
  curl -N -H 'Authorization: Bearer %s' %s/api/jobs/%s/progress

Move it, here and on the page, by a tenth each time (without psql: bin/demo --database-url '%[5]s' step):
  psql '%[5]s' -c "%[6]s"

A page of your own: internal/web/hook/README.md, "Against the demo".

%[7]s
`, page, token, page, byHand, s.DatabaseURL, moveByHand, ending)
	return nil
}
