package bus

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

type metrics struct {
	received, ignored       *prometheus.CounterVec
	reconnects, readsFailed prometheus.Counter
	reads, roundTrip        prometheus.Histogram
	queueUsage              prometheus.Gauge
	armed, busy             prometheus.Gauge
	toArmed, toBusy, cycles prometheus.Counter
	cycle                   prometheus.Gauge
}

// seconds are the buckets for what goes to the database and back: 0.25 ms to 8 s.
var seconds = prometheus.ExponentialBuckets(0.00025, 2, 16)

func newMetrics(reg prometheus.Registerer, h *hub.Hub) metrics {
	make := promauto.With(reg)
	make.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "jobprogress_bus_live",
		Help: "1 while the bus has proven that it hears the database, else 0.",
	}, func() float64 {
		if live, _ := h.Live(); live {
			return 1
		}
		return 0
	})
	m := metrics{
		received: make.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_notices_received_total",
			Help: "Well-formed notices, by kind.",
		}, []string{"kind"}),
		ignored: make.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_notices_ignored_total",
			Help: "Notices not taken as they were, by reason: malformed, unsealed (not from our functions: the row is read), partial (its transaction is older than our lock: the row is read), disarmed (busy: rows are read on the cycle), unwatched, or stale (the row had been read already).",
		}, []string{"reason"}),
		reconnects: make.NewCounter(prometheus.CounterOpts{
			Name: "jobprogress_bus_reconnects_total",
			Help: "Attempts to listen again.",
		}),
		reads: make.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobprogress_snapshot_read_seconds",
			Help:    "Snapshot reads and how long they took. One reads up to 1,000 jobs.",
			Buckets: seconds,
		}),
		readsFailed: make.NewCounter(prometheus.CounterOpts{
			Name: "jobprogress_snapshot_reads_failed_total",
			Help: "Snapshot reads that failed.",
		}),
		roundTrip: make.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobprogress_probe_seconds",
			Help:    "Time from sending a probe to hearing it.",
			Buckets: seconds,
		}),
		queueUsage: make.NewGauge(prometheus.GaugeOpts{
			Name: "jobprogress_notification_queue_usage",
			Help: "How full the database's queue of notifications is, 0 to 1, when the last probe was sent. At 1, transactions that notify fail.",
		}),
	}
	buckets := make.NewGaugeVec(prometheus.GaugeOpts{
		Name: "jobprogress_buckets",
		Help: "Buckets of watched jobs, of 256, by mode: armed (changes are notified) or busy (rows are read on the cycle, because changes come too fast or the lock is not to be had).",
	}, []string{"mode"})
	m.armed, m.busy = buckets.WithLabelValues("armed"), buckets.WithLabelValues("busy")
	switches := make.NewCounterVec(prometheus.CounterOpts{
		Name: "jobprogress_bucket_switches_total",
		Help: "How often a bucket became armed or busy.",
	}, []string{"to"})
	m.toArmed, m.toBusy = switches.WithLabelValues("armed"), switches.WithLabelValues("busy")
	m.cycles = make.NewCounter(prometheus.CounterOpts{
		Name: "jobprogress_cycles_total",
		Help: "Cycles in which the jobs of busy buckets were read.",
	})
	m.cycle = make.NewGauge(prometheus.GaugeOpts{
		Name: "jobprogress_cycle_seconds",
		Help: "Time between cycles.",
	})
	// A series that starts at 0 has a rate from the start.
	for _, kind := range []job.Kind{job.KindState, job.KindRow, job.KindItem, job.KindProbe} {
		m.received.WithLabelValues(string(kind))
	}
	for _, reason := range []string{malformed, unsealed, partial, hub.Disarmed, hub.Unwatched, hub.Stale} {
		m.ignored.WithLabelValues(reason)
	}
	return m
}
