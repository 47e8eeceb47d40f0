package test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"qshm/shm"
)

// The side of the processes that a test starts: a process reads calls from its standard
// input, makes each in a goroutine of its own, and answers when the call has returned. It
// exits when its standard input ends.

// kinds are the errors that a test can recognise in an answer, by their names.
var kinds = map[string]error{
	"ErrKey": shm.ErrKey, "ErrSize": shm.ErrSize, "ErrExist": shm.ErrExist, "ErrNotExist": shm.ErrNotExist,
	"ErrPermission": shm.ErrPermission, "ErrNoSpace": shm.ErrNoSpace, "ErrNotLocked": shm.ErrNotLocked,
	"ErrDetached": shm.ErrDetached, "ErrReadOnly": shm.ErrReadOnly, "ErrCorrupt": shm.ErrCorrupt,
	"ErrAbandoned": shm.ErrAbandoned, "ErrType": shm.ErrType, "ErrBusy": shm.ErrBusy,
	"fs.ErrExist": fs.ErrExist, "fs.ErrNotExist": fs.ErrNotExist, "fs.ErrPermission": fs.ErrPermission,
	"io.EOF": io.EOF, "Canceled": context.Canceled, "DeadlineExceeded": context.DeadlineExceeded,
}

type child struct {
	mu       sync.Mutex
	segments map[string]*shm.Segment
	last     int
	cancels  map[int]context.CancelFunc
	out      *json.Encoder
	gate     chan struct{} // some calls wait for it; the call "go" closes it
}

func runChild() {
	c := &child{
		segments: map[string]*shm.Segment{}, cancels: map[int]context.CancelFunc{},
		out: json.NewEncoder(os.Stdout), gate: make(chan struct{}),
	}
	c.send(answer{ID: 0, N: os.Getpid()})
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			panic(err)
		}
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if r.Timeout != 0 {
			ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		} else {
			ctx, cancel = context.WithCancel(ctx)
		}
		c.mu.Lock()
		c.cancels[r.ID] = cancel
		c.mu.Unlock()
		go func() {
			a := answer{ID: r.ID}
			if err := c.call(ctx, r, &a); err != nil {
				a.Error = asRemote(err)
			}
			c.send(a)
			cancel()
		}()
	}
}

func (c *child) send(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Encode(a)
}

func (c *child) keep(s *shm.Segment, a *answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	a.Handle = strconv.Itoa(c.last)
	c.segments[a.Handle] = s
}

func (c *child) segment(handle string) *shm.Segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments[handle]
}

func (o opts) options(ctx context.Context) []shm.Option {
	var list []shm.Option
	if o.ReadOnly {
		list = append(list, shm.ReadOnly())
	}
	if o.Sparse {
		list = append(list, shm.Sparse())
	}
	if o.Max != 0 {
		list = append(list, shm.MaxAttachments(o.Max))
	}
	if o.Perm != 0 {
		list = append(list, shm.Perm(o.Perm))
	}
	if o.Init != "" {
		list = append(list, shm.Init(func(data []byte) error { copy(data, o.Init); return nil }))
	}
	if o.Timeout != 0 {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		context.AfterFunc(ctx, cancel)
		list = append(list, shm.WithContext(ctx))
	}
	return list
}

// die kills its own process, as proc.kill does from outside.
func die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		self.Kill()
	}
	select {} // Kill can return before the process ends
}

// call makes one call. The calls of a segment are in onSegment.
func (c *child) call(ctx context.Context, r request, a *answer) (err error) {
	k, list := string(r.Key), r.Opts.options(ctx)
	switch r.Op {
	case "create":
		s, err := shm.Create(k, r.N, list...)
		if err == nil {
			c.keep(s, a)
		}
		return err
	case "attach":
		s, err := shm.Attach(k, list...)
		if err == nil {
			c.keep(s, a)
		}
		return err
	case "open":
		s, created, err := shm.Open(k, r.N, list...)
		if a.OK = created; err == nil {
			c.keep(s, a)
		}
		return err
	case "stat":
		info, err := shm.Stat(k, list...)
		a.Infos = []shm.Info{info}
		return err
	case "list":
		infos, err := shm.List(list...)
		a.Infos = infos
		return err
	case "sweep":
		infos, err := shm.Sweep(list...)
		a.Infos = infos
		return err
	case "remove":
		return shm.Remove(k, list...)
	case "cancel":
		c.mu.Lock()
		c.cancels[r.N]()
		c.mu.Unlock()
		return nil
	case "go":
		close(c.gate)
		return nil
	case "ping":
		return nil
	case "gc":
		runtime.GC()
		return nil
	case "die":
		die()
	case "exit":
		os.Exit(0)
	case "closeall":
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.segments {
			err = errors.Join(err, s.Close())
		}
		return err
	case "lifetimes":
		return lifetimes(k, r.N)
	}
	if f := extra[r.Op]; f != nil {
		return f(c, ctx, r, a)
	}
	s := c.segment(r.Handle)
	if s == nil {
		return fmt.Errorf("%q: no such call, or no such segment", r.Op)
	}
	return c.onSegment(ctx, s, r, a)
}

// extra are calls that few tests need. They are defined beside the tests.
var extra = map[string]func(c *child, ctx context.Context, r request, a *answer) error{}

func (c *child) onSegment(ctx context.Context, s *shm.Segment, r request, a *answer) (err error) {
	switch r.Op {
	case "detach":
		return s.Detach()
	case "grow":
		return s.Grow(r.N)
	case "replaced":
		info, ok := s.Replaced()
		a.OK, a.Infos = ok, []shm.Info{info}
		return nil
	case "close":
		return s.Close()
	case "lock":
		return s.Lock()
	case "lockcontext":
		return s.LockContext(ctx)
	case "trylock":
		a.OK, err = s.TryLock()
		return err
	case "notify":
		return s.Notify()
	case "unlock":
		return s.Unlock()
	case "abandoned":
		a.OK = s.Abandoned()
		return nil
	case "attached":
		a.OK = s.Attached()
		return nil
	case "readonly":
		a.OK = s.ReadOnly()
		return nil
	case "size":
		a.N = s.Size()
		return nil
	case "key":
		a.Data = []byte(s.Key())
		return nil
	case "version":
		a.Version = s.Version()
		return nil
	case "info":
		info, err := s.Info()
		a.Infos = []shm.Info{info}
		return err
	case "update":
		return s.Update(func(data []byte) error {
			copy(data[r.Off:], r.Data)
			return nil
		})
	case "view":
		return s.View(func(data []byte) error {
			a.Data = append(a.Data, data[r.Off:r.Off+int64(r.N)]...)
			return nil
		})
	case "readat":
		a.Data = make([]byte, r.N)
		a.N, err = s.ReadAt(a.Data, r.Off)
		a.Data = a.Data[:a.N]
		return err
	case "writeat":
		a.N, err = s.WriteAt(r.Data, r.Off)
		return err
	case "snapshot":
		a.Data = make([]byte, r.N)
		a.N, a.Version, err = s.Snapshot(a.Data)
		a.Data = a.Data[:a.N]
		return err
	case "wait":
		a.Version, err = s.Wait(ctx, r.Version)
		return err
	case "poke":
		copy(s.Data()[r.Off:], r.Data)
		return nil
	case "peek":
		a.Data = append(a.Data, s.Data()[r.Off:r.Off+int64(r.N)]...)
		return nil
	case "count":
		return count(s, r.N)
	case "countupdates":
		return countUpdates(s, r.N)
	case "turns":
		a.N, err = c.turns(s, r.N)
		return err
	case "locks":
		return uncontended(s, r.N)
	case "snapshots":
		return snapshots(s, r.N)
	}
	return fmt.Errorf("%q: no such call", r.Op)
}

// repeat calls fn n times, until it reports an error.
func repeat(n int, fn func() error) error {
	for range n {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

// word is the number at the beginning of data. The lock guards it; it is not atomic.
func word(data []byte) *uint64 { return (*uint64)(unsafe.Pointer(unsafe.SliceData(data))) }

// snapshots checks n snapshots of a segment whose bytes are all the same.
func snapshots(s *shm.Segment, n int) error {
	buf := make([]byte, s.Size())
	for range n {
		if _, _, err := s.Snapshot(buf); err != nil {
			return err
		}
		for i, b := range buf {
			if b != buf[0] {
				return fmt.Errorf("a torn snapshot: byte 0 is %d, byte %d is %d", buf[0], i, b)
			}
		}
	}
	return nil
}

// lifetimes attaches to a segment and detaches again, n times.
func lifetimes(k string, n int) error {
	return repeat(n, func() error {
		s, err := shm.Attach(k)
		if err != nil {
			return err
		}
		return s.Detach()
	})
}

func uncontended(s *shm.Segment, n int) error {
	return repeat(n, func() error { return errors.Join(s.Lock(), s.Unlock()) })
}

// count adds one to the number n times, each time with the lock held.
func count(s *shm.Segment, n int) error {
	return repeat(n, func() error {
		if err := s.Lock(); err != nil {
			return err
		}
		*word(s.Data())++
		return s.Unlock()
	})
}

func countUpdates(s *shm.Segment, n int) error {
	return repeat(n, func() error {
		return s.Update(func(data []byte) error { *word(data)++; return nil })
	})
}

// turns takes the lock in a tight loop until all processes together have taken it
// total times, and returns how often this process has.
func (c *child) turns(s *shm.Segment, total int) (own int, err error) {
	<-c.gate
	for {
		if err := s.Lock(); err != nil {
			return own, err
		}
		n := word(s.Data())
		over := *n >= uint64(total)
		if !over {
			*n++
			own++
		}
		if err := s.Unlock(); err != nil || over {
			return own, err
		}
	}
}

// A request is a call, and an answer its result. On the pipes, each is a line of JSON.
type request struct {
	ID      int
	Op      string
	Handle  string        `json:",omitempty"`
	Key     []byte        `json:",omitempty"`
	N       int           `json:",omitempty"`
	Off     int64         `json:",omitempty"`
	Data    []byte        `json:",omitempty"`
	Version uint32        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
	Opts    opts
}

func (r *request) options(o []opts) {
	if len(o) > 0 {
		r.Opts = o[0]
	}
}

type opts struct {
	ReadOnly bool          `json:",omitempty"`
	Sparse   bool          `json:",omitempty"`
	Max      int           `json:",omitempty"`
	Perm     fs.FileMode   `json:",omitempty"`
	Init     string        `json:",omitempty"` // what Init writes
	Timeout  time.Duration `json:",omitempty"`
}

type answer struct {
	ID      int
	OK      bool         `json:",omitempty"`
	Handle  string       `json:",omitempty"`
	N       int          `json:",omitempty"`
	Data    []byte       `json:",omitempty"`
	Version uint32       `json:",omitempty"`
	Infos   []shm.Info   `json:",omitempty"`
	Error   *remoteError `json:",omitempty"`
}

// remoteError is an error of another process. errors.Is finds the kinds in it.
type remoteError struct {
	Text  string
	Kinds []string
	Own   bool // the error is an *shm.Error
	Op    string
	Key   []byte
}

func (e *remoteError) Error() string { return e.Text }

func (e *remoteError) Is(target error) bool {
	for _, name := range e.Kinds {
		if kinds[name] == target {
			return true
		}
	}
	return false
}

func asRemote(err error) *remoteError {
	e := &remoteError{Text: err.Error()}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if errors.Is(err, kinds[name]) {
			e.Kinds = append(e.Kinds, name)
		}
	}
	var own *shm.Error
	if e.Own = errors.As(err, &own); e.Own {
		e.Op, e.Key = own.Op, []byte(own.Key)
	}
	return e
}
