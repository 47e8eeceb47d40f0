package stream

import (
	"io"
	"sync/atomic"
	"testing"

	"qshm/shm"
)

// A reader that looks while a writer comes never finds all writers closed, although the
// last one has died.
func TestWriterThatComesHidesNoDeadOne(t *testing.T) {
	s, err := Open("s", 4096, shm.Dir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sub, err := s.Subscribe(FromOldest())
	if err != nil {
		t.Fatal(err)
	}
	dead := s.id + 1<<16 // no attachment has it
	var rounds atomic.Int64
	done := make(chan bool)
	go func() {
		defer close(done)
		for rounds.Load() < 50_000 {
			if sub.writersGone(false) == io.EOF {
				t.Error("all writers count as closed")
				return
			}
		}
	}()
	for range 50_000 {
		s.ring.writers[1].Store(dead)
		s.ring.writers[0].Store(0) // this process is not a writer any more
		s.writer.Store(0)
		if err := s.becomeWriter(); err != nil {
			t.Fatal(err)
		}
		rounds.Add(1)
	}
	<-done
}
