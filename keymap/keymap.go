// Package keymap maps a key to a file name, and finds the store, the directory that
// a user's segment files are in.
//
//   - [Make] returns the store and makes it if it is missing; [Find] does not make it.
//   - [Name] returns the name of the segment file of a key; [IsName] tells such names
//     from others in a directory.
//   - [Hash] is what a segment file stores of its key.
//
// The mapping is part of the file format: two programs share a segment only if both
// map its key to the same name in the same directory.
package keymap

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// HashSize is the number of bytes in the hash of a key.
const HashSize = sha256.Size

// Hash returns the SHA-256 of key. Two keys are different if their hashes are.
func Hash(key string) [HashSize]byte { return sha256.Sum256([]byte(key)) }

// Suffix is the end of every segment file's name. It keeps other files of a shared
// directory from being taken for segments.
const Suffix = ".qshm"

const (
	maxPrefix = 24                // characters of the key that a name begins with, for people
	hashBytes = 20                // bytes of the hash in a name
	hashChars = hashBytes * 8 / 5 // the same in base 32
)

// encoding is lower-case, because some file systems ignore case.
var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// Name returns the file name for key: a readable prefix of the key, 160 bits of its
// hash, and Suffix. For the key "frames" that is "frames-", 32 characters, and ".qshm".
//
// Every string is a key, also the empty one and one that is not text. A name is a
// valid file name on every system: it consists of a-z, 0-9, '-', '_' and the dot of
// the suffix, begins with a letter or a digit, and has at most 62 characters.
func Name(key string) string {
	hash := Hash(key)
	name := encoding.EncodeToString(hash[:hashBytes]) + Suffix
	if p := prefix(key); p != "" {
		return p + "-" + name
	}
	return name
}

// IsName reports whether name has the form of the names that Name returns.
func IsName(name string) bool {
	stem, ok := strings.CutSuffix(name, Suffix)
	if !ok || len(stem) < hashChars {
		return false
	}
	head, hash := stem[:len(stem)-hashChars], stem[len(stem)-hashChars:]
	for i := range len(hash) {
		if c := hash[i]; (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	if head == "" {
		return true
	}
	readable, ok := strings.CutSuffix(head, "-")
	return ok && readable != "" && readable == prefix(readable)
}

// prefix returns the beginning of key in characters that are safe in a file name on
// every system. Each run of other characters becomes one '_'.
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
