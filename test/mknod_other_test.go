//go:build unix && !linux

package test

import "errors"

func mknod(string) error { return errors.ErrUnsupported }
