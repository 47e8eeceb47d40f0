package stream

import (
	"os"
	"reflect"
	"regexp"
	"strconv"
	"testing"
)

// FORMAT.md names each field of the header, of a group and of a cursor, with the offset
// and the size that the structs have.
func TestFormatNamesEveryField(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	type field struct{ offset, size uintptr }
	got := make(map[string]field)
	// The tables begin at offset 0: header, group, cursor.
	tables := []string{"header", "group", "cursor"}
	table := -1
	for _, row := range regexp.MustCompile("(?m)^\\| (\\d+) \\| (\\d+) \\| `(\\w+)`").FindAllStringSubmatch(string(text), -1) {
		offset, _ := strconv.ParseUint(row[1], 10, 32)
		size, _ := strconv.ParseUint(row[2], 10, 32)
		if offset == 0 {
			table++
		}
		if table < 0 || table >= len(tables) {
			t.Fatalf("the row %q belongs to no table", row[0])
		}
		got[tables[table]+"."+row[3]] = field{uintptr(offset), uintptr(size)}
	}
	for i, typ := range []reflect.Type{reflect.TypeFor[header](), reflect.TypeFor[group](), reflect.TypeFor[cursor]()} {
		for _, f := range reflect.VisibleFields(typ) {
			if f.Name == "_" {
				continue
			}
			name := tables[i] + "." + f.Name
			want := field{f.Offset, f.Type.Size()}
			if g, ok := got[name]; !ok {
				t.Errorf("FORMAT.md does not name %s", name)
			} else if g != want {
				t.Errorf("FORMAT.md has %s at offset %d with %d bytes; it is at %d with %d", name, g.offset, g.size, want.offset, want.size)
			}
			delete(got, name)
		}
	}
	for name := range got {
		t.Errorf("FORMAT.md names %s, which there is not", name)
	}
	if size := reflect.TypeFor[group]().Size(); size != 128 {
		t.Errorf("a group has %d bytes; FORMAT.md says 128", size)
	}
	if size := reflect.TypeFor[cursor]().Size(); size != 128 {
		t.Errorf("a cursor has %d bytes; FORMAT.md says 128", size)
	}
	if ringOff != 12288 {
		t.Errorf("the ring begins at %d; FORMAT.md says 12288", ringOff)
	}
}
