//go:build !linux && !windows

package futex

import "testing"

// eachWay runs a test the one way that there is here.
func eachWay(t *testing.T, test func(*testing.T)) { test(t) }

func otherWay() string { return "" }

func setWay(string) {}

const polls = true

func onlyWakes(*testing.T) {}

func setOnlyWakes() {}
