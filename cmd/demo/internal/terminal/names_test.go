package terminal

import (
	"bytes"
	"testing"
)

// Output that is no terminal is exactly what was written, whoever wrote it.
func TestNamesLeavePipesAlone(t *testing.T) {
	var out bytes.Buffer
	n := Names{Out: &out}
	for _, w := range []struct{ id, text string }{{"a", "one\ntw"}, {"b", "three\n"}, {"a", "o\n"}, {"b", ""}} {
		n.Joins(w.id)
		if err := n.Write(w.id, w.id, []byte(w.text)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := out.String(), "one\ntwthree\no\n"; got != want {
		t.Errorf("the output is %q, want %q", got, want)
	}
}
