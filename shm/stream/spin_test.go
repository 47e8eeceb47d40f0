package stream

import (
	"testing"
	"time"
)

// A reader that is a little faster than its writer spins, and does not cost the writer
// a system call for each message. Where messages are rare, it does not.
func TestAReaderSpinsIfMessagesComeSoon(t *testing.T) {
	if maxPatience == 0 {
		t.Skip("a single processor")
	}
	r := &Subscription{}
	for range 20 {
		r.adapt(0)
	}
	if r.patience != maxPatience {
		t.Errorf("after short sleeps, it looks for %d pauses; want %d", r.patience, maxPatience)
	}
	r.adapt(shortWait)
	if r.patience >= maxPatience {
		t.Error("a long sleep makes it no less patient")
	}
	for range 20 {
		r.adapt(time.Second)
	}
	if r.patience != minPatience {
		t.Errorf("after long sleeps, it looks for %d pauses; want %d", r.patience, minPatience)
	}
	// Spinning for the longest time and then sleeping all the same is the worst.
	r.patience = maxPatience
	r.adapt(shortWait / 2)
	if r.patience >= maxPatience {
		t.Error("a long spin in vain makes it no less patient")
	}
}
