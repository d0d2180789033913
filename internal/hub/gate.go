package hub

import "jobprogress/internal/job"

// The database notifies the changes of a job only where the bus asks for it, by bucket: that is armed. All changes of an
// armed bucket's jobs are told, but for those of transactions that began before. Of others some may be, and they may be
// halves of transactions, so none is shown: their rows are read. A read proves something only under the rule under which
// it began.
type gate struct {
	topics, watchers [len(job.Buckets{})]int
	armed            [len(job.Buckets{})]uint64 // which time of being armed this is; 0 is not armed
	times            uint64
}

// Watched are the buckets of the jobs that somebody watches, and those of all topics, which linger.
func (h *Hub) Watched() (watched, kept job.Buckets) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for b := range kept {
		kept[b] = h.gate.topics[b] > 0
		watched[b] = kept[b] && h.gate.watchers[b] > 0 // of a job that is gone, too
	}
	return watched, kept
}

// Arm says that every transaction that begins from now on tells what it changes of these buckets' jobs. What changed
// until now is to be read.
func (h *Hub) Arm(buckets job.Buckets) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate.times++
	for b, in := range buckets {
		if in {
			h.gate.armed[b] = h.gate.times
		}
	}
	h.each(buckets, h.want)
}

// Disarm says that from now on changes of these buckets' jobs may not be notified.
func (h *Hub) Disarm(buckets job.Buckets) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for b, in := range buckets {
		if in {
			h.gate.armed[b] = 0
		}
	}
	h.each(buckets, (*topic).unsettle)
}

// Want has the jobs of these buckets read.
func (h *Hub) Want(buckets job.Buckets) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.each(buckets, h.want)
}

// Poll has the jobs read whose changes are not notified, if anybody watches them, and returns how many they are.
func (h *Hub) Poll() (jobs int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	quiet := true
	for b, n := range h.gate.watchers {
		quiet = quiet && (n == 0 || h.gate.armed[b] != 0)
	}
	if quiet {
		return 0
	}
	for id, t := range h.topics {
		if h.gate.armed[id.Bucket()] == 0 && t.watchers > 0 {
			h.want(t)
			jobs++
		}
	}
	return jobs
}

// each does something with the topics of these buckets. The caller holds mu.
func (h *Hub) each(buckets job.Buckets, do func(*topic)) {
	if buckets == (job.Buckets{}) {
		return
	}
	for id, t := range h.topics {
		if buckets[id.Bucket()] {
			do(t)
		}
	}
}
