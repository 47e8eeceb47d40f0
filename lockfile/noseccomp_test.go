//go:build linux && !amd64 && !arm64

package lockfile

import "errors"

func denyFcntl(command, errno uint32) error {
	return errors.New("the filter is written for two processors")
}
