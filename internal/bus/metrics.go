package bus

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"jobprogress/internal/hub"
)

type metrics struct {
	notifications         *prometheus.CounterVec
	watched, unwatched    prometheus.Counter
	unnotified            prometheus.Counter
	reads, roundTrip      prometheus.Histogram
	listReads             prometheus.Histogram
	jobsRead, readsFailed prometheus.Counter
	polls                 prometheus.Counter
	pollInterval          prometheus.Gauge
	notified, polled      prometheus.Gauge
	toNotified, toPolled  prometheus.Counter
	reconnects            *prometheus.CounterVec
	queueUsage, hold      prometheus.Gauge
	sweeps, swept         prometheus.Counter
	findings              *prometheus.GaugeVec
}

// seconds are the histogram's buckets for what goes to the database and back: 0.25 ms to 8 s.
var seconds = prometheus.ExponentialBuckets(0.00025, 2, 16)

func newMetrics(reg prometheus.Registerer, h *hub.Hub) metrics {
	factory := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return factory.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return factory.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds})
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "jobprogress_bus_live",
		Help: "1 while the bus has proven that notifications reach it, else 0.",
	}, func() float64 {
		if status, _ := h.Status(); status.Live {
			return 1
		}
		return 0
	})
	buckets := factory.NewGaugeVec(prometheus.GaugeOpts{
		Name: "jobprogress_buckets",
		Help: "Buckets of watched jobs, of 256, by state: notified, or polled because changes come too fast or the lock is not to be had.",
	}, []string{"state"})
	switches := factory.NewCounterVec(prometheus.CounterOpts{
		Name: "jobprogress_bucket_switches_total",
		Help: "How often a bucket became polled for being over budget, or notified again.",
	}, []string{"to"})
	m := metrics{
		notifications: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_notifications_total",
			Help: "Notifications received, by what they name: watched or unwatched jobs, probe, or malformed.",
		}, []string{"of"}),
		unnotified:   counter("jobprogress_unnotified_changes_total", "Changes that the backstop found and nobody notified."),
		reads:        histogram("jobprogress_read_seconds", "Reads and how long they took. One reads up to 1,000 jobs."),
		listReads:    histogram("jobprogress_list_read_seconds", "Reads of accounts' lists and how long they took. One reads up to 1,000."),
		jobsRead:     counter("jobprogress_jobs_read_total", "Jobs read."),
		readsFailed:  counter("jobprogress_reads_failed_total", "Reads that failed."),
		polls:        counter("jobprogress_polls_total", "Polls of the jobs that are watched and not notified."),
		pollInterval: gauge("jobprogress_poll_interval_seconds", "Time between two polls."),
		notified:     buckets.WithLabelValues("notified"),
		polled:       buckets.WithLabelValues("polled"),
		toNotified:   switches.WithLabelValues("notified"),
		toPolled:     switches.WithLabelValues("polled"),
		reconnects: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_bus_reconnects_total",
			Help: "Attempts to connect again, by session: listen or read.",
		}, []string{"session"}),
		roundTrip:  histogram("jobprogress_probe_seconds", "Time from a probe's commit to its echo."),
		queueUsage: gauge("jobprogress_notification_queue_usage", "How full the database's queue of notifications is, 0 to 1, when the last probe was sent. At 1, transactions that notify fail."),
		hold:       gauge("jobprogress_notify_lock_seconds", "How long a notifying commit holds the lock for which such commits wait, by the last probes."),
		findings: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "jobprogress_findings",
			Help: "What stands in the way of jobs being shown, or may, by the code that the log and the command check explain.",
		}, []string{"code"}),
		sweeps: counter("jobprogress_sweeps_total", "Sweeps of the item log by this server."),
		swept:  counter("jobprogress_swept_items_total", "Rows of the item log deleted in them."),
	}
	// A series that starts at 0 has a rate from the start.
	for _, of := range []string{"probe", "malformed"} {
		m.notifications.WithLabelValues(of)
	}
	m.watched, m.unwatched = m.notifications.WithLabelValues("watched"), m.notifications.WithLabelValues("unwatched")
	for _, session := range []string{"listen", "read"} {
		m.reconnects.WithLabelValues(session)
	}
	return m
}
