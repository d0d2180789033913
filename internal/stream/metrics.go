package stream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	open                  prometheus.Gauge
	opened, frames, bytes prometheus.Counter
	ended                 *prometheus.CounterVec
	duration, latency     prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	factory := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := metrics{
		open:   factory.NewGauge(prometheus.GaugeOpts{Name: "jobprogress_streams_open", Help: "Streams open now."}),
		opened: counter("jobprogress_streams_opened_total", "Streams opened."),
		frames: counter("jobprogress_frames_written_total", "Event frames written to streams."),
		bytes:  counter("jobprogress_stream_bytes_written_total", "Bytes written to streams."),
		ended: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_streams_ended_total",
			Help: "Streams ended, by reason: final, gone, not_owner, expired, aged, revoked, drained, client or stalled.",
		}, []string{"reason"}),
		duration: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobprogress_stream_duration_seconds",
			Help:    "How long streams were open, when they ended.",
			Buckets: []float64{1, 5, 15, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
		}),
		latency: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobprogress_notification_to_frame_seconds",
			Help:    "From the notification of a change to its frame written, with the read of the row in between. Once for all viewers who are written to together.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}),
	}
	// A series that starts at 0 has a rate from the start.
	for _, reason := range ends[1:] {
		m.ended.WithLabelValues(reason)
	}
	return m
}

func (m metrics) end(why end) {
	m.ended.WithLabelValues(ends[why]).Inc()
	m.open.Dec()
}

// wrote counts a batch that viewers were sent. What a viewer missed is no measure of how fast changes are sent.
func (m metrics) wrote(b *batch) {
	if b.sent > 0 && b.frames > 0 {
		m.frames.Add(float64(b.frames * b.sent))
	}
	if b.news > 0 {
		for _, at := range b.at {
			m.latency.Observe(max(0, time.Since(at).Seconds()))
		}
	}
	b.sent, b.news = 0, 0
}
