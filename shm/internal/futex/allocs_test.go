//go:build !race

package futex

import (
	"testing"
	"time"
)

func TestNothingIsAllocated(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		w := newWords(t, 1, 1)[0]
		for name, call := range map[string]func(){
			"Ticket":                   func() { w.Ticket() },
			"Sleep":                    func() { w.Sleep(w.Ticket(), 0, time.Microsecond) },
			"Sleep for longer":         func() { w.Sleep(w.Ticket(), 0, 2*time.Millisecond) },
			"Sleep on another value":   func() { w.Sleep(w.Ticket(), 1, time.Hour) },
			"Sleep with an old ticket": func() { w.Sleep(w.Ticket()-1, 0, time.Hour) },
			"Wake":                     w.Wake,
			"Interrupt":                w.Interrupt,
			"Yield":                    Yield,
		} {
			if n := testing.AllocsPerRun(20, call); n != 0 {
				t.Errorf("%s allocates %v times", name, n)
			}
		}
	})
}
