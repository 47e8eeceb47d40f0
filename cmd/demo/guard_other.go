//go:build !unix

package main

import "context"

// guarded just shows: here the console belongs to the system, which restores it.
func guarded(ctx context.Context, show func(context.Context) error) error { return show(ctx) }

func alone() bool { return false }
