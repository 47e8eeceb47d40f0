package spin

import (
	"testing"
	"time"
)

func TestPatienceFollowsTheWaits(t *testing.T) {
	if !Worthwhile {
		t.Skip("a single processor")
	}
	var p Patience
	for range 20 {
		p.Slept(0)
	}
	if p.pauses != maxPauses {
		t.Errorf("after short sleeps, it spins for %d pauses; want %d", p.pauses, maxPauses)
	}
	p.Slept(shortWait)
	if p.pauses >= maxPauses {
		t.Error("a long sleep makes it no less patient")
	}
	for range 20 {
		p.Slept(time.Second)
	}
	if p.pauses != minPauses {
		t.Errorf("after long sleeps, it spins for %d pauses; want %d", p.pauses, minPauses)
	}
	// Spinning for the longest time and then sleeping all the same is the worst.
	p.pauses = maxPauses
	p.Slept(shortWait / 2)
	if p.pauses >= maxPauses {
		t.Error("a long spin in vain makes it no less patient")
	}
}

func TestSpinEndsWhenTheWaitIsOver(t *testing.T) {
	p := Patience{pauses: minPauses}
	looks := 0
	if !p.Spin(func() bool { looks++; return looks == 3 }) || looks != 3 {
		t.Errorf("%d looks, want 3", looks)
	}
	if p.pauses != 2*minPauses {
		t.Errorf("then it spins for %d pauses, want %d", p.pauses, 2*minPauses)
	}
	if p.Spin(func() bool { return false }) {
		t.Error("a spin in vain reports success")
	}
}
