//go:build !unix

package main

import "context"

// guarded runs show: here the system restores the console.
func guarded(ctx context.Context, show func(context.Context) error) error { return show(ctx) }

func alone() bool { return false }
