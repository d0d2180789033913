// Package network is what tests put between a server and its PostgreSQL: links that fail, and a pooler.
package network

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"jobprogress/internal/pgtest"
)

// Link is a stretch of network that can fail: connections to Addr go on to where it leads.
type Link struct {
	Addr  string // host:port, the same for as long as the link lives
	proxy *toxiproxy.Proxy
}

// NewLink opens a link to host:port. The caller closes it.
func NewLink(to string) (*Link, error) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // some of it logs to the global logger
	port, err := pgtest.FreePort()
	if err != nil {
		return nil, err
	}
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), to, fmt.Sprint("127.0.0.1:", port), to)
	if err := proxy.Start(); err != nil {
		return nil, fmt.Errorf("open link to %s: %w", to, err)
	}
	return &Link{Addr: proxy.Listen, proxy: proxy}, nil
}

// Close ends the link and all connections through it.
func (l *Link) Close() { l.proxy.Stop() }

// Cut closes all connections, and refuses new ones until Mend.
func (l *Link) Cut() { l.proxy.Stop() }

// Mend takes back what Cut did.
func (l *Link) Mend() error { return l.proxy.Start() }

// Blackhole keeps connections open, new ones too, and lets nothing through in either direction until Heal.
func (l *Link) Blackhole() error { return l.poison("timeout", `{"timeout":0}`) }

// Delay holds everything back, in both directions, until Heal. All times are milliseconds.
func (l *Link) Delay(latency, jitter int) error {
	return l.poison("latency", fmt.Sprintf(`{"latency":%d,"jitter":%d}`, latency, jitter))
}

// Throttle lets that many kilobytes a second through, in both directions, until Heal.
func (l *Link) Throttle(rate int) error {
	return l.poison("bandwidth", fmt.Sprintf(`{"rate":%d}`, rate))
}

func (l *Link) poison(kind, attributes string) error {
	for _, direction := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"type":%q,"stream":%q,"attributes":%s}`, kind, direction, attributes)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("%s on link to %s: %w", kind, l.proxy.Upstream, err)
		}
	}
	return nil
}

// Heal lets everything through again. Connections that were in a black hole end.
func (l *Link) Heal() { l.proxy.Toxics.ResetToxics(context.Background()) }

// Through is the URL of the same database, reached through a link to its server.
func (l *Link) Through(databaseURL string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		panic(err) // it has been connected to
	}
	u.Host = l.Addr
	return u.String()
}

// Host is the host:port of a database's server.
func Host(databaseURL string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		panic(err) // it has been connected to
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "5432")
	}
	return u.Host
}
