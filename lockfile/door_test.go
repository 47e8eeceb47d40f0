package lockfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var background = context.Background()

// made returns the path of an empty file.
func made(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func enter(t *testing.T, path string) *Door {
	t.Helper()
	door, err := Enter(background, path)
	if err != nil {
		t.Fatal(err)
	}
	return door
}

// wantPathError asks for an error of the kind that names the file and an
// operation.
func wantPathError(t *testing.T, err error, path string, kind error) {
	t.Helper()
	var named *fs.PathError
	if !errors.As(err, &named) || named.Path != path || named.Op == "" {
		t.Errorf("%v: want an *fs.PathError about %s", err, path)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("%v: want it to be: %v", err, kind)
	}
}

func TestDoorExcludesGoroutines(t *testing.T) {
	path := made(t)
	var wg sync.WaitGroup
	var inside atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 50 {
				door, err := Enter(background, path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d are inside", n)
				}
				runtime.Gosched()
				inside.Add(-1)
				door.Leave()
			}
		})
	}
	wg.Wait()
}

func TestDoorExcludesOtherProcesses(t *testing.T) {
	path := made(t)
	inside := start(t, "inside", path)
	if door, err := TryEnter(path); !errors.Is(err, ErrInside) {
		t.Fatalf("TryEnter: %v, %v; want ErrInside", door, err)
	}
	inside.kill()
	door, err := Enter(background, path)
	if err != nil {
		t.Fatalf("after the other has died: %v", err)
	}
	door.Leave()
}

func TestTryEnterDoesNotWait(t *testing.T) {
	path := made(t)
	door := enter(t, path)
	_, err := TryEnter(path)
	wantPathError(t, err, path, ErrInside)
	door.Leave()
	if door, err = TryEnter(path); err != nil {
		t.Fatalf("nobody is inside: %v", err)
	}
	door.Leave()
}

func TestNoFileNoDoor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	_, err := Enter(background, path)
	wantPathError(t, err, path, fs.ErrNotExist)
	_, err = TryEnter(path)
	wantPathError(t, err, path, fs.ErrNotExist)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("entering made the file")
	}
}

// Who waits at a door while the file is removed must not end up inside a file
// that has no name any more.
func TestWaitingAtARemovedFileFindsItGone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the door is left before the file is removed on Windows")
	}
	for range 20 {
		path := made(t)
		door := enter(t, path)
		result := make(chan error)
		for range 4 {
			go func() {
				door, err := Enter(background, path)
				if err == nil {
					door.Leave()
				}
				result <- err
			}()
		}
		runtime.Gosched()
		if err := door.Remove(); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if err := <-result; !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("entered by a file that has been removed: %v", err)
			}
		}
	}
}

// The same with a successor: then it is that one's door.
func TestWaitingAtAReplacedFileEntersTheNewOne(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is open keeps its name on Windows")
	}
	for range 20 {
		path := made(t)
		door := enter(t, path)
		result := make(chan *Door)
		go func() {
			door, err := Enter(background, path)
			if err != nil {
				t.Error(err)
			}
			result <- door
		}()
		runtime.Gosched()
		next := path + ".next"
		if err := os.WriteFile(next, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
		door.Leave()
		other := <-result
		now, err := os.Stat(path)
		if other == nil || err != nil || !os.SameFile(other.Info(), now) {
			t.Fatalf("inside another file than the one that stands at the path: %v", err)
		}
		other.Leave()
	}
}

func TestOneOfManyMakes(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "file")
		var wg sync.WaitGroup
		var makers atomic.Int32
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				switch door, err := Make(path, 0o600); {
				case err == nil:
					makers.Add(1)
					door.Leave()
				case !errors.Is(err, fs.ErrExist):
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := makers.Load(); n != 1 {
			t.Fatalf("%d made the file", n)
		}
	}
}

// Some make, some enter and remove what they find: whoever is inside is alone
// there, and what has been made is there until it is removed.
func TestMakingAndRemovingExclude(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	var inside atomic.Int32
	visit := func(door *Door, err error, remove bool) {
		switch {
		case errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist):
			return
		case err != nil:
			t.Error(err)
			return
		}
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d are inside", n)
		}
		if now, err := os.Lstat(path); err != nil || !os.SameFile(now, door.Info()) {
			t.Errorf("the file inside is not the one at the path: %v", err)
		}
		inside.Add(-1)
		if remove {
			err = door.Remove()
		} else {
			err = door.Leave()
		}
		if err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		wg.Go(func() {
			for range 300 {
				door, err := Make(path, 0o600)
				visit(door, err, false)
			}
		})
		wg.Go(func() {
			for i := range 300 {
				door, err := Enter(background, path)
				visit(door, err, i%2 == 0)
			}
		})
	}
	wg.Wait()
}

func TestMakeGivesThePermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows")
	}
	path := filepath.Join(t.TempDir(), "file")
	door, err := Make(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer door.Leave()
	if mode := door.Info().Mode(); mode != 0o600 {
		t.Errorf("made with mode %v", mode)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	path := made(t)
	door := enter(t, path)
	defer door.Leave()
	ctx, cancel := context.WithCancel(background)
	result := make(chan error)
	go func() {
		_, err := Enter(ctx, path)
		result <- err
	}()
	runtime.Gosched()
	cancel()
	err := <-result
	wantPathError(t, err, path, context.Canceled)

	ctx, cancel = context.WithTimeout(background, time.Millisecond)
	defer cancel()
	_, err = Enter(ctx, path)
	wantPathError(t, err, path, context.DeadlineExceeded)
}

func TestEndedContextDoesNotEnter(t *testing.T) {
	ctx, cancel := context.WithCancel(background)
	cancel()
	path := made(t)
	_, err := Enter(ctx, path)
	wantPathError(t, err, path, context.Canceled)
}

func TestWaitingWithAContextGetsIn(t *testing.T) {
	path := made(t)
	door := enter(t, path)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	result := make(chan error)
	go func() {
		door, err := Enter(ctx, path)
		if err == nil {
			door.Leave()
		}
		result <- err
	}()
	runtime.Gosched()
	door.Leave()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestWhoGivesUpLeavesNothingOpen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts /proc/self/fd")
	}
	path := made(t)
	door := enter(t, path)
	defer door.Leave()
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	TryEnter(path)
	before := count()
	for range 20 {
		TryEnter(path)
		ctx, cancel := context.WithTimeout(background, time.Millisecond)
		Enter(ctx, path)
		cancel()
	}
	if after := count(); after > before {
		t.Errorf("%d files open before, %d after", before, after)
	}
}

func TestOnlyRegularFilesHaveDoors(t *testing.T) {
	for name, path := range irregular(t) {
		t.Run(name, func(t *testing.T) {
			before, _ := os.Lstat(path)
			_, err := Enter(background, path)
			wantPathError(t, err, path, ErrNotRegular)
			_, err = TryEnter(path)
			wantPathError(t, err, path, ErrNotRegular)
			if _, err := Make(path, 0o600); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Make: %v, want fs.ErrExist", err)
			}
			if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
				t.Errorf("it has changed: %v", err)
			}
		})
	}
}

// opened makes a file and opens it, until the test ends.
func opened(t *testing.T, dir string) (file *os.File, path string, info fs.FileInfo) {
	t.Helper()
	path = filepath.Join(dir, "file")
	err := os.WriteFile(path, make([]byte, 4096), 0o600)
	if err == nil {
		file, err = Open(path, os.O_RDWR)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if info, err = file.Stat(); err != nil {
		t.Fatal(err)
	}
	return file, path, info
}

func TestLeadsTo(t *testing.T) {
	_, path, info := opened(t, t.TempDir())
	if same, err := LeadsTo(path, info); !same || err != nil {
		t.Errorf("while it is there: %v, %v", same, err)
	}
	if err := enter(t, path).Remove(); err != nil { // which an open file is not in the way of
		t.Fatal(err)
	}
	if same, err := LeadsTo(path, info); same || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("when it is gone: %v, %v", same, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if same, err := LeadsTo(path, info); same || err != nil {
		t.Errorf("when another is there: %v, %v", same, err)
	}
}

func TestRemoveOfARemovedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is open cannot be removed on Windows")
	}
	path := made(t)
	door := enter(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := door.Remove(); err != nil {
		t.Errorf("somebody else had removed it: %v", err)
	}
}
