//go:build !unix

package main

import "github.com/rogpeppe/go-internal/testscript"

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	ts.Fatalf("there are no signals here")
}
