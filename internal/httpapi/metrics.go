package httpapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"jobprogress/internal/hub"
)

type metrics struct {
	open                  prometheus.Gauge
	opened, frames, bytes prometheus.Counter
	ended, refused        *prometheus.CounterVec
	latency               prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	make := promauto.With(reg)
	m := metrics{
		open: make.NewGauge(prometheus.GaugeOpts{
			Name: "jobprogress_streams_open",
			Help: "Streams open now.",
		}),
		opened: make.NewCounter(prometheus.CounterOpts{
			Name: "jobprogress_streams_opened_total",
			Help: "Streams opened.",
		}),
		ended: make.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_streams_ended_total",
			Help: "Streams ended, by reason: final, gone, not_owner, expired, aged, revoked, drained, client or stalled.",
		}, []string{"reason"}),
		refused: make.NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_requests_refused_total",
			Help: "Requests refused, by the code of the problem.",
		}, []string{"code"}),
		frames: make.NewCounter(prometheus.CounterOpts{
			Name: "jobprogress_frames_written_total",
			Help: "Event frames written to streams.",
		}),
		bytes: make.NewCounter(prometheus.CounterOpts{
			Name: "jobprogress_stream_bytes_written_total",
			Help: "Bytes written to streams.",
		}),
		latency: make.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobprogress_notification_to_frame_seconds",
			Help:    "From the notification of a change to the frame written, with the read of the row in between.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}),
	}
	// A series that starts at 0 has a rate from the start.
	for _, reason := range ends {
		m.ended.WithLabelValues(reason)
	}
	return m
}

func (m metrics) wrote(bytes, frames int, fresh []hub.Frame) {
	m.bytes.Add(float64(bytes))
	m.frames.Add(float64(frames))
	for _, f := range fresh {
		if !f.At.IsZero() {
			m.latency.Observe(max(0, time.Since(f.At).Seconds()))
		}
	}
}
