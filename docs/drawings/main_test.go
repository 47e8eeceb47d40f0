package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDrawingsAreThoseOfTheirTexts(t *testing.T) {
	texts, err := filepath.Glob("*.txt")
	if err != nil || len(texts) == 0 {
		t.Fatalf("%d texts, %v", len(texts), err)
	}
	for _, name := range texts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		drawn, err := os.ReadFile(strings.TrimSuffix(name, ".txt") + ".svg")
		if err != nil || !bytes.Equal(drawn, svg(string(text))) {
			t.Errorf("the drawing of %s is not that of its text: go run ./docs/drawings (%v)", name, err)
		}
	}
}
