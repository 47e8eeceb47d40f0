//go:build !unix

package test

import "testing"

func (p *proc) stop() { p.t.Skip("processes cannot be stopped here") }

func (p *proc) cont() {}

func (p *proc) dump() {}

func needStop(t testing.TB) { t.Skip("processes cannot be stopped here") }
