package lockfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

var background = context.Background()

// emptyFile returns the path of a new empty file.
func emptyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.qshm")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func lock(t *testing.T, path string) *File {
	t.Helper()
	f, err := Lock(background, path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shortPatience makes waits without a deadline end early.
func shortPatience(t *testing.T) {
	before := Patience
	Patience = 30 * time.Millisecond
	t.Cleanup(func() { Patience = before })
}

// wantPathError asks for an error that names the file and an operation, each once, and
// wraps kind.
func wantPathError(t *testing.T, err error, path string, kind error) {
	t.Helper()
	var named *fs.PathError
	if !errors.As(err, &named) || named.Path != path || named.Op == "" || strings.Count(err.Error(), path) != 1 {
		t.Errorf("%v: want an *fs.PathError that names %s once", err, path)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("%v: want it to wrap: %v", err, kind)
	}
}

func TestFileLockExcludesGoroutines(t *testing.T) {
	path := emptyFile(t)
	var wg sync.WaitGroup
	var holders atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 50 {
				f, err := Lock(background, path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the file lock", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				f.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestFileLockExcludesProcesses(t *testing.T) {
	path := emptyFile(t)
	other := start(t)
	other.do("lock", path)
	_, err := TryLock(path)
	wantPathError(t, err, path, ErrLocked)
	wait := mustBlock(t, "Lock", func() {
		if f, err := Lock(background, path); err != nil {
			t.Error(err)
		} else {
			f.Unlock()
		}
	})
	other.kill()
	wait()
}

func TestTryLockDoesNotWait(t *testing.T) {
	path := emptyFile(t)
	f := lock(t, path)
	_, err := TryLock(path)
	wantPathError(t, err, path, ErrLocked)
	f.Unlock()
	if f, err = TryLock(path); err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	f.Unlock()
}

func TestLockDoesNotCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.qshm")
	_, err := Lock(background, path)
	wantPathError(t, err, path, fs.ErrNotExist)
	_, err = TryLock(path)
	wantPathError(t, err, path, fs.ErrNotExist)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file was created")
	}
}

func TestWaiterOfARemovedFileFindsNone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows the file is unlocked before it is removed")
	}
	for range 20 {
		path := emptyFile(t)
		f := lock(t, path)
		result := make(chan error)
		for range 4 {
			go func() {
				f, err := Lock(background, path)
				if err == nil {
					f.Unlock()
				}
				result <- err
			}()
		}
		runtime.Gosched()
		if err := f.Remove(); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if err := <-result; !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("locked a file that has been removed: %v", err)
			}
		}
	}
}

func TestWaiterOfAReplacedFileLocksTheNewOne(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is open keeps its name on Windows")
	}
	for range 20 {
		path := emptyFile(t)
		f := lock(t, path)
		result := make(chan *File)
		go func() {
			f, err := Lock(background, path)
			if err != nil {
				t.Error(err)
			}
			result <- f
		}()
		runtime.Gosched()
		next := path + ".next"
		if err := os.WriteFile(next, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
		f.Unlock()
		got := <-result
		now, err := os.Stat(path)
		if got == nil || err != nil || !os.SameFile(got.Info(), now) {
			t.Fatalf("locked another file than the one at the path: %v", err)
		}
		got.Unlock()
	}
}

func TestOneOfManyCreates(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "test.qshm")
		var wg sync.WaitGroup
		var creators atomic.Int32
		begin := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-begin
				switch f, err := Create(path, 0o600); {
				case err == nil:
					creators.Add(1)
					f.Unlock()
				case !errors.Is(err, fs.ErrExist):
					t.Error(err)
				default:
					wantPathError(t, err, path, fs.ErrExist)
				}
			})
		}
		close(begin)
		wg.Wait()
		if n := creators.Load(); n != 1 {
			t.Fatalf("%d created the file", n)
		}
	}
}

// visit creates, locks and removes the file at path in turn. A second file, which only
// the holder of the file lock creates and removes, shows whether another one holds it.
func visit(path string, rounds int) error {
	mark := path + ".holder"
	for i := range rounds {
		var f *File
		var err error
		if i%2 == 0 {
			f, err = Create(path, 0o600)
		} else {
			f, err = Lock(background, path)
		}
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		m, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return errors.Join(errors.New("two hold the file lock"), err)
		}
		if now, err := os.Lstat(path); err != nil || !os.SameFile(now, f.Info()) {
			return errors.Join(errors.New("the file locked is not the one at the path"), err)
		}
		m.Close()
		if err := os.Remove(mark); err != nil {
			return err
		}
		if i%4 == 3 {
			err = f.Remove()
		} else {
			err = f.Unlock()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCreateAndRemoveExclude(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.qshm")
	rounds := 400
	if runtime.GOOS == "windows" {
		rounds = 100 // slow in wine
	}
	var wg sync.WaitGroup
	for range 2 {
		other := start(t)
		wg.Go(func() {
			if reply := other.try("visit", path, rounds); reply != "done" {
				t.Error(reply)
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			if err := visit(path, rounds); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCreateGivesThePermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows")
	}
	path := filepath.Join(t.TempDir(), "test.qshm")
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Unlock()
	if mode := f.Info().Mode(); mode != 0o600 {
		t.Errorf("created with mode %v", mode)
	}
	if f.Path() != path || f.Info().Size() != 0 {
		t.Errorf("%s, %d bytes; want %s, empty", f.Path(), f.Info().Size(), path)
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	path := emptyFile(t)
	defer lock(t, path).Unlock()
	ctx, cancel := context.WithCancel(background)
	wait := mustBlock(t, "Lock", func() {
		_, err := Lock(ctx, path)
		wantPathError(t, err, path, context.Canceled)
	})
	cancel()
	wait()
	ctx, cancel = context.WithTimeout(background, time.Millisecond)
	defer cancel()
	_, err := Lock(ctx, path)
	wantPathError(t, err, path, context.DeadlineExceeded)
}

func TestContextThatHasEndedDoesNotLock(t *testing.T) {
	ctx, cancel := context.WithCancel(background)
	cancel()
	path := emptyFile(t)
	_, err := Lock(ctx, path)
	wantPathError(t, err, path, context.Canceled)
}

func TestWaitWithoutADeadlineIsBounded(t *testing.T) {
	shortPatience(t)
	path := emptyFile(t)
	defer lock(t, path).Unlock()
	cancellable, cancel := context.WithCancel(background)
	defer cancel()
	for _, ctx := range []context.Context{background, cancellable} {
		before := time.Now()
		_, err := Lock(ctx, path)
		wantPathError(t, err, path, ErrBusy)
		if took := time.Since(before); took < Patience {
			t.Errorf("waited for %v only", took)
		}
		if want := "other processes have held the file lock for 30ms"; !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestWaitWithADeadlineLastsUntilThen(t *testing.T) {
	shortPatience(t)
	path := emptyFile(t)
	f := lock(t, path)
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	time.AfterFunc(3*Patience, func() { f.Unlock() })
	got, err := Lock(ctx, path)
	if err != nil {
		t.Fatalf("before the deadline: %v", err)
	}
	got.Unlock()
}

// A process that may only read the file can hold the file lock. It can delay others,
// and no more.
func TestWaitForAReaderIsBounded(t *testing.T) {
	shortPatience(t)
	path := emptyFile(t)
	reader := flock.New(path, flock.SetFlag(os.O_RDONLY))
	if ok, err := reader.TryRLock(); !ok {
		t.Fatal(err)
	}
	defer reader.Unlock()
	_, err := Lock(background, path)
	wantPathError(t, err, path, ErrBusy)
}

func TestLockThatFailsLeavesNothingOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts /proc/self/fd")
	}
	shortPatience(t)
	path := emptyFile(t)
	defer lock(t, path).Unlock()
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	TryLock(path)
	before := count()
	for range 5 {
		TryLock(path)
		Lock(background, path)
		Create(path, 0o600)
		TryLock(filepath.Dir(path))
	}
	if after := count(); after > before {
		t.Errorf("%d files open before, %d after", before, after)
	}
}

func TestOnlyRegularFilesAreLocked(t *testing.T) {
	for name, path := range irregular(t) {
		t.Run(name, func(t *testing.T) {
			before, _ := os.Lstat(path)
			_, err := Lock(background, path)
			wantPathError(t, err, path, ErrNotRegular)
			_, err = TryLock(path)
			wantPathError(t, err, path, ErrNotRegular)
			_, err = Create(path, 0o600)
			wantPathError(t, err, path, fs.ErrExist)
			if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
				t.Errorf("it has changed: %v", err)
			}
		})
	}
}

// A file that another process has written to, after its creation and before its
// creator locked it, belongs to that process.
func TestCreateLeavesAFileAloneThatAnotherUses(t *testing.T) {
	path := emptyFile(t)
	if err := os.WriteFile(path, []byte("used"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Create(path, 0o600)
	wantPathError(t, err, path, fs.ErrExist)
}

func TestRemoveOfARemovedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is open cannot be removed on Windows")
	}
	path := emptyFile(t)
	f := lock(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(); err != nil {
		t.Errorf("another process had removed it: %v", err)
	}
}

func TestRemoveUnlocks(t *testing.T) {
	path := emptyFile(t)
	file, err := Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := lock(t, path).Remove(); err != nil {
		t.Fatalf("while the file is open: %v", err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatalf("creating a successor: %v", err)
	}
	f.Unlock()
}
