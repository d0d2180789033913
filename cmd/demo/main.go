// Command demo is a playground: a throwaway PostgreSQL, the server, workers that run simulated jobs for two accounts,
// and a page to look at. It stands where an application would stand: it owns the job table, signs its users in, and
// puts jobprogress behind its own origin.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"jobprogress/internal/auth"
)

// settings of the demo. Each is a flag and an environment variable.
type settings struct {
	Up      upCommand      `cmd:"" default:"1" help:"All of it, until interrupted."`
	Prepare prepareCommand `cmd:"" help:"Create the stand-in job table if there is no table job, and attach jobprogress."`
	Step    stepCommand    `cmd:"" help:"Move the job that waits by a tenth."`
	Page    pageCommand    `cmd:"" help:"Only the page, in front of a server that runs elsewhere."`

	DatabaseURL    string `env:"DEMO_DATABASE_URL" placeholder:"URL" help:"Database to use, for the demo alone. Default of up: a throwaway one."`
	Addr           string `env:"DEMO_ADDR" default:"127.0.0.1:8000" help:"Address of the page."`
	JWTSecret      string `env:"JOBPROGRESS_JWT_SECRET" help:"Key of the tokens, the server's. Default of up: a random one."`
	AllowedOrigins string `env:"DEMO_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Origins of your own pages that may read, comma-separated: http://localhost:5173 for Vite."`

	throwaway bool // the database is the demo's own
}

// tokenTTL is how long somebody stays signed in: longer than anybody looks at a demo.
const tokenTTL = 12 * time.Hour

func (s *settings) jwt() auth.JWT { return auth.JWT{Keys: auth.Secret(s.JWTSecret), Claim: "sub"} }

// account is somebody that the stand-in tables know.
type account struct{ ID, Name string }

var accounts = []account{
	{"00000000-0000-4000-8000-00000000000a", "Ada"},
	{"00000000-0000-4000-8000-00000000000b", "Ben"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // untilClosed ends us in order
	go func() {
		untilClosed(ctx, os.Stdout, os.Stderr)
		stop()
	}()
	var s settings
	command := kong.Parse(&s, kong.Name("demo"), kong.Description("A playground for jobprogress."))
	err := command.Run(&s, &run{ctx})
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// closedInterval is how often untilClosed looks.
const closedInterval = time.Second

// untilClosed waits until nobody reads one of the files any more: a terminal that was closed, or a pipe. The terminal
// says SIGHUP only to what it runs itself, which may be make.
func untilClosed(ctx context.Context, files ...*os.File) {
	var polled []unix.PollFd
	for _, file := range files {
		polled = append(polled, unix.PollFd{Fd: int32(file.Fd()), Events: unix.POLLHUP})
	}
	for ctx.Err() == nil {
		if _, err := unix.Poll(polled, int(closedInterval.Milliseconds())); err != nil && err != unix.EINTR {
			<-ctx.Done() // there is no such thing here
		}
		for i, file := range polled {
			if file.Revents&unix.POLLNVAL != 0 {
				polled[i].Fd = -1 // a device that can't be polled is passed over
			}
			if file.Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
				return
			}
		}
	}
}

// run is what the commands work in.
type run struct{ ctx context.Context }
