package hub

import (
	"bytes"

	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// MaxItems is how many items of a job are remembered.
const MaxItems = 256

// showItems makes these the newest statuses of the items. Of two statuses of an item the one with the higher Seq counts,
// in whatever order their transactions commit. The caller holds mu.
func (t *topic) showItems(items []job.Item, all bool) {
	if all {
		t.keepItems(items)
	}
	for _, item := range items {
		old := t.items[item.ItemID]
		if old != nil && old.item.Seq >= item.Seq {
			continue
		}
		data := sse.Data(item.Event())
		if old != nil && bytes.Equal(old.data, data) {
			old.item.Seq = item.Seq
			continue
		}
		if t.items == nil {
			t.items = make(map[string]*part)
		}
		t.items[item.ItemID] = t.put(old, part{data: data, item: &item})
		if len(t.items) > MaxItems {
			t.evictItem()
		}
	}
}

// keepItems forgets the items that are not among these, which are all of the job's present run. Seq of the others may
// have begun anew, after a crash of the database. The caller holds mu.
func (t *topic) keepItems(items []job.Item) {
	kept := make(map[string]bool, len(items))
	for _, item := range items {
		kept[item.ItemID] = true
	}
	for id, p := range t.items {
		p.item.Seq = 0
		if !kept[id] {
			t.drop(p)
			delete(t.items, id)
		}
	}
}

// evictItem forgets the finished item that changed longest ago, or if none is finished, any item. The newest stays. The
// caller holds mu.
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
