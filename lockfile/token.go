package lockfile

import (
	"crypto/rand"
	"encoding/binary"
)

func randomToken() (uint64, error) {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if token := binary.NativeEndian.Uint64(b[:]); token != 0 {
			return token, nil
		}
	}
}
