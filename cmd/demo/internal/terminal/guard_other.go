//go:build !unix

package terminal

import "context"

// Guarded calls show: here the system restores the console.
func Guarded(ctx context.Context, show func(context.Context) error, _ func()) error {
	return show(ctx)
}

func alone() bool { return false }
