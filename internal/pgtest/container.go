package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// Image is the container that is started when TEST_POSTGRES_IMAGE names no other.
const Image = "postgres:17"

// dockerTimeout bounds how long an engine may take to say that it is there.
const dockerTimeout = 3 * time.Second

// dockerServer is a server in a container.
type dockerServer struct {
	*testcontainers.DockerContainer
}

// silence keeps the library from logging, which it does to a global.
var silence = sync.OnceFunc(func() { log.SetDefault(log.NewNoopLogger()) })

func startContainer(ctx context.Context, settings []string) (s *Server, err error) {
	// Without an engine the library panics in places.
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("no engine answers: %v", r)
		}
	}()
	silence()
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return nil, fmt.Errorf("no engine answers: %w", err)
	}
	defer provider.Close()
	health, cancel := context.WithTimeout(ctx, dockerTimeout)
	defer cancel()
	if err := provider.Health(health); err != nil {
		return nil, fmt.Errorf("no engine answers: %w", err)
	}

	image := os.Getenv("TEST_POSTGRES_IMAGE")
	if image == "" {
		image = Image
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	c, err := testcontainers.Run(ctx, image,
		testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": password}),
		testcontainers.WithExposedPorts("5432/tcp"),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			// A port of our choice, because a container that is stopped and started gets another one.
			h.PortBindings = network.PortMap{network.MustParsePort("5432/tcp"): {{
				HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(port),
			}}}
		}),
		testcontainers.WithCmd(append([]string{"postgres"}, settings...)...),
	)
	if err != nil {
		testcontainers.TerminateContainer(c)
		return nil, fmt.Errorf("run %s: %w", image, err)
	}
	s = &Server{engine: dockerServer{c}, From: "Docker image " + image}
	host, err := c.Host(ctx)
	if err == nil {
		s.URL = fmt.Sprintf("postgres://postgres:%s@%s:%d/postgres?sslmode=disable", password, host, port)
		err = Ready(ctx, s.URL, nil)
	}
	if err != nil {
		s.Stop()
		return nil, fmt.Errorf("run %s: %w", image, err)
	}
	return s, nil
}

// haltTimeout is how long a container may take to stop before it is killed.
var haltTimeout = 20 * time.Second

func (c dockerServer) halt(ctx context.Context, immediate bool) error {
	timeout := haltTimeout
	if immediate {
		timeout = 0
	}
	return c.Stop(ctx, &timeout)
}

func (c dockerServer) resume(ctx context.Context) error { return c.Start(ctx) }

func (c dockerServer) stop() error {
	return testcontainers.TerminateContainer(c.DockerContainer, testcontainers.StopTimeout(0))
}
