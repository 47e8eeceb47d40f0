package shm

import (
	"context"
	"io/fs"
)

// An Option changes how a segment is found, made or attached.
type Option func(*options)

type options struct {
	readOnly bool
	dir      string
	perm     fs.FileMode
	sparse   bool
	slots    int // 0: what fits the first page
	ctx      context.Context
}

func gather(opts []Option) options {
	o := options{perm: 0o600, ctx: context.Background()}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// ReadOnly maps the data read-only: a write to it faults. The header is still
// written, because attachments count themselves and take the lock there, so
// attaching needs permission to write the file.
var ReadOnly Option = func(o *options) { o.readOnly = true }

// Dir names the store to use instead of $QSHM_DIR or the user's own. It is made
// if it is missing. Who may enter it is up to the caller.
func Dir(path string) Option { return func(o *options) { o.dir = path } }

// Perm sets the permissions of a file that is created; 0600 without it. To share
// with a group, name a store that the group may write, and give Perm(0660).
func Perm(mode fs.FileMode) Option { return func(o *options) { o.perm = mode.Perm() } }

// Sparse does not allocate the memory at creation: it costs nothing until it is
// touched. The price: where the store is full by then, touching it is a fault.
// ReadAt, WriteAt, Snapshot, View and Update report ErrNoSpace; any other use of
// the memory kills the process (SIGBUS).
func Sparse() Option { return func(o *options) { o.sparse = true } }

// MaxAttachments sets how many attachments a created segment can have at a time,
// from 1 to 65535. Without it, as many as fit the first page: 220 where pages
// have 4096 bytes. Each takes 16 bytes.
func MaxAttachments(n int) Option {
	return func(o *options) {
		o.slots = n
		if n < 1 {
			o.slots = -1
		}
	}
}

// WithContext bounds the waiting of one call, which then fails with an error that
// wraps the context's. Creating and attaching wait only while another process
// creates, attaches or destroys the same segment, which takes microseconds, or is
// stopped in the middle of it.
func WithContext(ctx context.Context) Option { return func(o *options) { o.ctx = ctx } }
