package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	refused *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	return metrics{
		refused: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "jobprogress_requests_refused_total",
			Help: "Requests refused, by the code of the problem.",
		}, []string{"code"}),
	}
}
