package test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"qshm/shm"
)

// Calls of a child that one test needs.

func init() {
	// openatonce waits for the gate and then opens, so that many processes do so at once.
	extra["openatonce"] = func(c *child, _ context.Context, r request, a *answer) error {
		<-c.gate
		s, created, err := shm.Open(string(r.Key), r.N)
		if a.OK = created; err == nil {
			c.keep(s, a)
		}
		return err
	}
	// slowinit creates a segment, and initialises it when the gate opens.
	extra["slowinit"] = func(c *child, _ context.Context, r request, a *answer) error {
		s, err := shm.Create(string(r.Key), r.N, shm.Init(func(data []byte) error {
			<-c.gate
			copy(data, "slow")
			return nil
		}))
		if err == nil {
			c.keep(s, a)
		}
		return err
	}
	// fill sets all bytes to one value, and then to the next, until the gate opens.
	extra["fill"] = func(c *child, _ context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		for ; ; a.N++ {
			select {
			case <-c.gate:
				return nil
			default:
			}
			err := s.Update(func(data []byte) error {
				for i := range data {
					data[i] = byte(a.N)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	// litter creates n segments and stays attached to them.
	extra["litter"] = func(c *child, _ context.Context, r request, a *answer) error {
		for i := range r.N {
			s, err := shm.Create(fmt.Sprint("litter ", i), 64, shm.Sparse())
			if err != nil {
				return err
			}
			c.keep(s, a)
		}
		return nil
	}
	// creations creates and destroys a segment n times, under a key of its own.
	extra["creations"] = func(c *child, _ context.Context, r request, a *answer) error {
		for range r.N {
			s, err := shm.Create(string(r.Key)+"2", 64)
			if err != nil {
				return err
			}
			if err := s.Detach(); err != nil {
				return err
			}
		}
		return nil
	}
	// echo answers each change after version N by another change, until the gate opens.
	extra["echo"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		for v := uint32(r.N); ; v++ {
			if _, err := s.Wait(ctx, v); err != nil {
				return err
			}
			select {
			case <-c.gate:
				return nil
			default:
			}
			if err := s.Update(func(data []byte) error { data[0]++; return nil }); err != nil {
				return err
			}
			v++
		}
	}
	// spawn starts a process that outlives this one. It does not inherit the pipe from
	// the test, whose end would end it.
	extra["spawn"] = func(c *child, _ context.Context, r request, a *answer) error {
		line := append(strings.Fields(os.Getenv(envExec)), os.Args[0], "-test.run=^$")
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = append(os.Environ(), envChild+"=orphan")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		hello, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			return err
		}
		a.N, err = strconv.Atoi(strings.TrimSpace(hello))
		return err
	}
}

// runOrphan is what the process does that spawn starts.
func runOrphan() {
	fmt.Println(os.Getpid())
	select {}
}

// endPID ends a process that a child has started.
func endPID(pid int) {
	if p, err := os.FindProcess(pid); err == nil && pid > 0 {
		p.Kill()
	}
}

func (st *store) wantFilesAfterSweep(keys ...string) {
	st.t.Helper()
	if _, err := shm.Sweep(shm.Dir(st.dir)); err != nil {
		st.t.Error(err)
	}
	st.wantFiles(keys...)
}

func base(path string) string { return filepath.Base(path) }
