package hub

import (
	"bytes"

	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// MaxItems is how many items of a job are remembered.
const MaxItems = 256

// applyItem shows the newest status of an item. No row holds it, so it is never stale.
func (t *topic) applyItem(n job.Notice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return
	}
	old := t.items[n.Item.ItemID]
	event := n.Item.Event()
	if old != nil && bytes.Equal(old.data, sse.Data(event)) {
		return
	}
	t.items[n.Item.ItemID] = t.put(old, part{data: event, at: n.At, item: &n.Item})
	if len(t.items) > MaxItems {
		t.evictItem()
	}
	t.wakeAll()
}

// evictItem forgets the finished item that changed longest ago, or if none is finished, any item. The one just told
// of stays. The caller holds mu.
func (t *topic) evictItem() {
	var victim *part
	for _, p := range t.parts[:len(t.parts)-1] {
		if p.item != nil && (victim == nil || p.item.Finished() && !victim.item.Finished()) {
			victim = p
		}
	}
	t.drop(victim)
	delete(t.items, victim.item.ItemID)
}

// startAgain forgets the items of the run that has ended. Those told of after its end are the new run's. The caller
// holds mu.
func (t *topic) startAgain() {
	for id, p := range t.items {
		if p.version < t.status.version {
			t.drop(p)
			delete(t.items, id)
		}
	}
}
