package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// calmInterval is how often is looked whether memory can be given back.
	calmInterval = 5 * time.Second
	// leastReturned is how much is worth it, in bytes.
	leastReturned = 2 << 20
)

// returnMemory gives the system back what is free, when all is calm. Many viewers who come at once take some 20 kB each, for a
// moment; Go keeps as much free memory as there is in use, for the next time.
func returnMemory(ctx context.Context) error {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	ticker := time.NewTicker(calmInterval)
	defer ticker.Stop()
	var cycles uint64
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		metrics.Read(samples)
		calm := cycles == samples[0].Value.Uint64() // nothing was collected meanwhile, so little was used
		cycles = samples[0].Value.Uint64()
		if free := samples[1].Value.Uint64(); calm && free > leastReturned && free > samples[2].Value.Uint64()/4 {
			debug.FreeOSMemory()
		}
	}
}
