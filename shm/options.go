package shm

import (
	"context"
	"io/fs"
	"math"
)

// An Option changes how a segment is found, created or attached.
type Option func(*options)

type options struct {
	readOnly bool
	init     func(data []byte) error
	dir      string
	perm     fs.FileMode
	sparse   bool
	slots    int
	ctx      context.Context
}

func gather(opts []Option) options {
	o := options{perm: 0o600, slots: asManyAsFit, ctx: context.Background()}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// ReadOnly maps the data read-only: a write to them faults. The header is still
// written, because attachments count themselves and take the lock there, so
// attaching needs permission to write the file.
func ReadOnly() Option { return func(o *options) { o.readOnly = true } }

// Init gives the function that initialises a segment. Create, and Open if it
// creates, call it with the data, all zero, before any other process can attach:
// processes that attach meanwhile wait, each as long as its WithContext allows, or
// ten seconds. If the function fails or panics, or the process dies in it, there is
// no segment; the error is reported as it is, wrapped in an *Error.
//
// A call that attaches to an existing segment ignores Init. The function must not
// attach to the same key: that would wait for itself.
func Init(fn func(data []byte) error) Option { return func(o *options) { o.init = fn } }

// Dir names the store to use instead of $QSHM_DIR or the user's own. Create and
// Open make it, with its parents, if it is missing. Its owner and mode are up to
// the caller.
func Dir(path string) Option { return func(o *options) { o.dir = path } }

// Perm sets the permissions of a file that is created, whatever the umask; without
// it they are 0600. To share with a group, name a store that the group may write,
// and give Perm(0o660). Perm must include 0600.
//
// A user who may only read the file cannot attach, but can look (Stat, List), read
// the data, keep others waiting for the file lock (all such waits are bounded), and
// keep newcomers out of free slots. A user who may also write it can do anything to
// the segment.
func Perm(mode fs.FileMode) Option { return func(o *options) { o.perm = mode.Perm() } }

// Sparse does not allocate the memory at creation: it costs nothing until it is
// touched. The price: if the store is full by then, touching the memory is a fault.
// ReadAt, WriteAt, Snapshot, Load, Store, View and Update report ErrNoSpace; any
// other use of the memory ends the process (SIGBUS).
func Sparse() Option { return func(o *options) { o.sparse = true } }

// MaxAttachments sets how many attachments a created segment can have at a time,
// from 1 to 65535. Without it, as many as fit the first page: 440 where pages have
// 4096 bytes. Each takes 8 bytes.
func MaxAttachments(n int) Option { return func(o *options) { o.slots = n } }

// asManyAsFit stands for no MaxAttachments.
const asManyAsFit = math.MinInt

// WithContext bounds the waiting of one call, which then fails with an error that
// wraps the context's. Creating and attaching wait only while another process
// creates, attaches to, grows or destroys the same segment, or runs Init for it.
// Without a context they wait for ten seconds, and fail with ErrBusy.
func WithContext(ctx context.Context) Option { return func(o *options) { o.ctx = ctx } }
