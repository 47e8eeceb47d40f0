package shm

import "testing"

func TestDirIsTheStore(t *testing.T) {
	dir := store(t)
	other := tempDir(t)
	seg := create(t, key, 1, Dir(other))
	if wantFiles(t, dir); len(files(t, other)) == 0 {
		t.Error("the segment is not in the store that was named")
	}
	_, err := Attach(key)
	wantError(t, err, "attach", key, ErrNotExist)
	detach(t, seg)
}

// A creator that cannot open its own file could not attach.
func TestPermWithoutTheOwnerIsRefused(t *testing.T) {
	dir := store(t)
	for _, perm := range []Option{Perm(0), Perm(0o400), Perm(0o200), Perm(0o077)} {
		for _, c := range byKey {
			if mayCreate(c.op) {
				wantError(t, c.call(key, perm), c.op, key, ErrPermission)
			}
		}
		wantFiles(t, dir)
	}
}
