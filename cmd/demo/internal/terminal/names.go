package terminal

import (
	"bytes"
	"io"
)

// Names writes texts of several processes. On a terminal each line begins with the name
// of the process that it is from, if several write.
type Names struct {
	Out     io.Writer
	writers map[string]bool
	last    string // whose text was written last
	open    bool   // whether its line has not ended
}

// Joins says that a process writes, with an identity that no other process has.
func (n *Names) Joins(id string) {
	if n.writers == nil {
		n.writers = map[string]bool{}
	}
	n.writers[id] = true
}

// Leaves says that a process does not write any more.
func (n *Names) Leaves(id string) { delete(n.writers, id) }

// Break ends a line that has not ended, on a terminal, before other output.
func (n *Names) Break() {
	if n.open && Is(n.Out) {
		io.WriteString(n.Out, "\n")
		n.open = false
	}
}

// Write writes a text of the process id, whose name is shown.
func (n *Names) Write(id, name string, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if Is(n.Out) && len(n.writers) > 1 {
		var lines bytes.Buffer
		if id != n.last {
			n.Break()
		}
		for line := range bytes.Lines(text) {
			if !n.open {
				lines.WriteString(Dim(n.Out, name+": "))
			}
			lines.Write(line)
			n.open = false // the next line of the text is one
		}
		text = lines.Bytes()
	}
	n.last, n.open = id, text[len(text)-1] != '\n'
	_, err := n.Out.Write(text)
	return err
}
