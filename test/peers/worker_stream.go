//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// connection is a pipe, a Unix socket or a TCP connection, for programs that share no memory. The descriptors block:
// Go's poller would slow them down.
type connection struct {
	in, out      int
	path, second string // files to remove
}

var (
	pipePeer = goPeer{"pipe", "pipe", "", streamOps(openPipe)}
	unixPeer = goPeer{"unix", "Unix socket", "", streamOps(openUnix)}
	tcpPeer  = goPeer{"tcp", "TCP loopback", "", streamOps(openTCP)}
)

// streamOps are the operations of a connection. It is made when the runner says go, because the side that creates must be
// ready before the other one starts.
func streamOps(open func(path string, create bool) (connect func() (*connection, error), err error)) map[string]func(*worker) error {
	with := func(body func(*worker, *connection) (figures, error)) func(*worker) error {
		return func(w *worker) error {
			connect, err := open(lockPath(w.arg("key")), w.number("create", 0) == 1)
			if err != nil {
				return err
			}
			return w.measure(func(int64) (figures, error) {
				s, err := connect()
				if err != nil {
					return figures{}, err
				}
				defer s.close()
				return body(w, s)
			})
		}
	}
	return map[string]func(*worker) error{
		"ping": with(pingStream), "move": with(moveStream), "messages": with(moveStream), "hand": with(pingStream),
	}
}

func pingStream(w *worker, s *connection) (figures, error) {
	first := w.number("create", 0) == 1
	var h hist
	b := make([]byte, w.number("size", 8))
	n := w.number("n", 1000)
	for range n {
		for _, mine := range []bool{first, !first} {
			if mine {
				binary.NativeEndian.PutUint64(b, uint64(w.now()))
				if err := s.write(b); err != nil {
					return figures{}, err
				}
				continue
			}
			if err := s.read(b); err != nil {
				return figures{}, err
			}
			h.add(w.now() - int64(binary.NativeEndian.Uint64(b)))
		}
	}
	return figures{N: int64(n), Max: h.max, Hist: &h}, nil
}

func moveStream(w *worker, s *connection) (figures, error) {
	n, warm, send := w.number("n", 100), w.number("warm", 2), w.number("create", 0) == 1
	b := make([]byte, w.number("size", 64))
	for i := range b {
		b[i] = 1
	}
	begin, pace := w.now(), newPace(n, w.number("slots", 2))
	for i := 1; i <= n+warm; i++ {
		if i == warm+1 {
			begin = w.now()
			pace.start()
		}
		if send {
			binary.NativeEndian.PutUint64(b, uint64(i))
			if err := s.write(b); err != nil {
				return figures{}, err
			}
			continue
		}
		if err := s.read(b); err != nil {
			return figures{}, err
		}
		if got := binary.NativeEndian.Uint64(b); got != uint64(i) {
			return figures{}, fmt.Errorf("payload %d arrived as %d", i, got)
		}
		if i > warm {
			pace.step()
		}
	}
	return figures{N: int64(n), Begin: begin, End: w.now(), Op: pace.each()}, nil
}

func (s *connection) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(s.out, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

func (s *connection) read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(s.in, b)
		if n == 0 && err == nil {
			return io.ErrUnexpectedEOF
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

func (s *connection) close() {
	_ = unix.Close(s.out)
	if s.in != s.out {
		_ = unix.Close(s.in)
	}
	for _, path := range []string{s.path, s.second} {
		if path != "" {
			_ = os.Remove(path)
		}
	}
}

// A pipe between processes that are not parent and child has names: one for each direction.
func openPipe(path string, create bool) (func() (*connection, error), error) {
	names := [2]string{path + ".forth", path + ".back"}
	if create {
		for _, n := range names {
			if err := unix.Mkfifo(n, 0o600); err != nil {
				return nil, err
			}
		}
	}
	// Opening a pipe for reading and writing does not wait for the other side. The pipe keeps its contents as long as
	// any process has it open: so each side opens both pipes before the first write.
	forth, err := unix.Open(names[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	back, err := unix.Open(names[1], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &connection{in: forth, out: back}
	if create {
		s = &connection{in: back, out: forth, path: names[0], second: names[1]}
	}
	return func() (*connection, error) { return s, nil }, nil
}

func openUnix(path string, create bool) (func() (*connection, error), error) {
	path += ".sock"
	if !create {
		return func() (*connection, error) { return dial("unix", path) }, nil
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return func() (*connection, error) { return accept(l) }, nil
}

// openTCP leaves the port in a file, as the system chooses it.
func openTCP(path string, create bool) (func() (*connection, error), error) {
	path += ".port"
	if !create {
		port, err := os.ReadFile(path)
		return func() (*connection, error) { return dial("tcp", "127.0.0.1:"+string(port)) }, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	return func() (*connection, error) { return accept(l) }, os.WriteFile(path, []byte(port), 0o600)
}

func accept(l net.Listener) (*connection, error) {
	defer func() { _ = l.Close() }()
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return blocking(c)
}

func dial(network, address string) (*connection, error) {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return blocking(c)
}

// blocking takes the descriptor out of Go's poller.
func blocking(c net.Conn) (*connection, error) {
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	_ = c.Close()
	fd, err := unix.Dup(int(f.Fd()))
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	return &connection{in: fd, out: fd}, unix.SetNonblock(fd, false)
}
