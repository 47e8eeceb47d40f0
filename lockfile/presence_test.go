package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func announce(t *testing.T, dir string) *Presence {
	t.Helper()
	p, err := Announce(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Withdraw() })
	return p
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestPresentProcessIsAlive(t *testing.T) {
	dir := t.TempDir()
	p := announce(t, dir)
	if !Alive(dir, p.Token()) {
		t.Error("this process takes itself for dead")
	}
	if answer := start(t, "asks", fmt.Sprintf("%s %d", dir, p.Token())).said; answer != "true" {
		t.Errorf("another process asks whether this one is alive: %s", answer)
	}
	if other := start(t, "present", dir); !Alive(dir, other.token()) {
		t.Error("another process is taken for dead")
	}
}

func TestKilledProcessIsDead(t *testing.T) {
	dir := t.TempDir()
	other := start(t, "present", dir)
	other.kill()
	if Alive(dir, other.token()) {
		t.Error("a killed process is taken for alive")
	}
}

func TestWithdrawnPresenceIsDead(t *testing.T) {
	dir := t.TempDir()
	p := announce(t, dir)
	if err := p.Withdraw(); err != nil {
		t.Fatal(err)
	}
	if Alive(dir, p.Token()) {
		t.Error("alive after Withdraw")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUnknownTokenIsDead(t *testing.T) {
	if Alive(t.TempDir(), 42) {
		t.Error("a token that nobody has announced is alive")
	}
}

func TestTokensAreTheirFiles(t *testing.T) {
	dir := t.TempDir()
	p := announce(t, dir)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	token, ok := PresenceToken(files[0].Name())
	if !ok || token != p.Token() || token == 0 {
		t.Errorf("the file is called %q, token %x, %v; want %x", files[0].Name(), token, ok, p.Token())
	}
	for _, name := range []string{"", ".live.", ".live.0000000000000000", ".live.123", ".live.0123456789abcdefg",
		".live.0123456789abcdeg", "live.0123456789abcdef", "x.live.0123456789abcdef"} {
		if token, ok := PresenceToken(name); ok {
			t.Errorf("PresenceToken(%q) = %x", name, token)
		}
	}
}

// Two who ask at once, and the owner itself, never take each other for the owner
// or the dead.
func TestProbersDoNotMistakeEachOther(t *testing.T) {
	dir := t.TempDir()
	living := announce(t, dir)
	dead := start(t, "present", dir)
	dead.kill()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if !Alive(dir, living.Token()) {
					t.Error("the living is taken for dead")
				}
				if Alive(dir, dead.token()) {
					t.Error("the dead is taken for alive")
				}
			}
		})
	}
	wg.Wait()
}

func TestBuryRemovesOnlyTheDead(t *testing.T) {
	dir := t.TempDir()
	living, dead := start(t, "present", dir), start(t, "present", dir)
	dead.kill()
	if Bury(dir, living.token()) || !exists(presencePath(dir, living.token())) {
		t.Error("the living was buried")
	}
	if !Bury(dir, dead.token()) || exists(presencePath(dir, dead.token())) {
		t.Error("the dead was not")
	}
	if !Bury(dir, dead.token()) {
		t.Error("and is not dead the second time")
	}
}

func TestManyBuryAtOnce(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		path := presencePath(dir, 42)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if !Bury(dir, 42) {
					t.Error("the dead was taken for alive")
				}
			})
		}
		wg.Wait()
		if exists(path) {
			t.Fatal("the file is still there")
		}
	}
}

// A process that has made the file and not locked it yet looks dead. If it is
// buried then, it must notice, and announce itself by another token: whoever is
// told a token must be able to rely on it.
func TestAnnouncingAmongGravediggers(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var diggers sync.WaitGroup
	for range 3 {
		diggers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				files, _ := os.ReadDir(dir)
				for _, f := range files {
					if token, ok := PresenceToken(f.Name()); ok {
						Bury(dir, token)
					}
				}
			}
		})
	}
	for range 2000 {
		p, err := Announce(dir)
		if err != nil {
			t.Error(err)
			break
		}
		if !p.Linked() || !Alive(dir, p.Token()) {
			t.Error("announced, and yet dead")
			break
		}
		p.Withdraw()
	}
	close(stop)
	diggers.Wait()
}

func TestPresenceKnowsWhenItsFileIsGone(t *testing.T) {
	dir := t.TempDir()
	p := announce(t, dir)
	if !p.Linked() {
		t.Error("not linked at once")
	}
	if err := os.Remove(presencePath(dir, p.Token())); err != nil {
		t.Skip("an open file cannot be removed here:", err)
	}
	if p.Linked() {
		t.Error("linked without a file")
	}
	if err := p.Withdraw(); err != nil {
		t.Error(err)
	}
}

func TestAnnounceInAStoreThatIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	_, err := Announce(dir)
	var named *fs.PathError
	if !errors.As(err, &named) || !errors.Is(err, fs.ErrNotExist) || filepath.Dir(named.Path) != dir {
		t.Errorf("%v", err)
	}
}
