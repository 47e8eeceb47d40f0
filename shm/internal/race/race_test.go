package race

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/edsrzf/mmap-go"
)

// Without the token, the race detector would report count: it does not see that
// the lock orders what happens.
func TestTokenOrdersWhatALockGuards(t *testing.T) {
	memory, err := mmap.MapRegion(nil, 4096, mmap.RDWR, mmap.ANON, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Unmap()
	lock := (*uint32)(unsafe.Pointer(&memory[0]))
	var token Token
	count := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				for !atomic.CompareAndSwapUint32(lock, 0, 1) {
					runtime.Gosched()
				}
				token.Acquire()
				count++
				token.Release()
				atomic.StoreUint32(lock, 0)
			}
		})
	}
	wg.Wait()
	if count != 400 {
		t.Errorf("%d, want 400", count)
	}
}
