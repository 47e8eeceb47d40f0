// Package keymap says where a key lives: it turns any key into a file name, and
// finds the directory, the store, that the files of one user stand in.
//
// Both are a format. A process that maps a key to another name, or looks in
// another directory, never meets the others.
package keymap

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// HashSize is the number of bytes in the hash of a key.
const HashSize = sha256.Size

// Hash returns the SHA-256 of the whole key. It is what makes two keys differ,
// whatever their length, script or encoding.
func Hash(key string) [HashSize]byte { return sha256.Sum256([]byte(key)) }

const (
	maxPrefix = 24 // characters of the key that a name repeats, for people
	hashBytes = 20 // of the hash in a name: 160 bits, 32 characters
)

// A lower-case alphabet: names must differ even where the file system ignores case.
var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// Name returns the file name for key: a readable prefix of it and a hash of the
// whole of it, for instance "frames-" and 32 characters for the key "frames".
//
// A name consists of the characters a-z, 0-9, '-' and '_' only, begins with a
// letter or a digit, and has at most 57 characters, so that it is a file name on
// every system. Any string is a key, also one that is not text.
func Name(key string) string {
	hash := Hash(key)
	tail := encoding.EncodeToString(hash[:hashBytes])
	if p := prefix(key); p != "" {
		return p + "-" + tail
	}
	return tail
}

// IsName reports whether name has the form of the names that Name makes.
func IsName(name string) bool {
	if len(name) < NameTail {
		return false
	}
	head, tail := name[:len(name)-NameTail], name[len(name)-NameTail:]
	for i := 0; i < len(tail); i++ {
		if c := tail[i]; (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	if head == "" {
		return true
	}
	readable, ok := strings.CutSuffix(head, "-")
	return ok && readable != "" && readable == prefix(readable)
}

// NameTail is how many characters of a name, its last ones, are the hash.
const NameTail = hashBytes * 8 / 5

// prefix keeps of key what is safe in a file name everywhere. Each run of
// anything else becomes one '_'.
func prefix(key string) string {
	var b strings.Builder
	gap := false
	for i := 0; i < len(key) && b.Len() < maxPrefix; i++ {
		c := key[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			gap = b.Len() > 0
			continue
		}
		if gap && b.Len() < maxPrefix-1 {
			b.WriteByte('_')
		}
		gap = false
		b.WriteByte(c)
	}
	return b.String()
}
