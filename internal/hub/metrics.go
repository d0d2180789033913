package hub

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	encoded prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, h *Hub) metrics {
	factory := promauto.With(reg)
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "jobprogress_topics",
		Help: "Jobs held in memory: those watched, and those watched within the last minute.",
	}, func() float64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		return float64(len(h.topics))
	})
	return metrics{
		encoded: factory.NewCounter(prometheus.CounterOpts{
			Name: "jobprogress_events_encoded_total",
			Help: "Events encoded. Each is encoded once, however many streams it goes to.",
		}),
	}
}
