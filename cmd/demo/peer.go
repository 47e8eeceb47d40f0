package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"qshm/shm"
)

// The second process of the tour and of the benchmark: another process of this program,
// which takes orders over a pipe, and answers each with a line.

// A peer is the second process, as the first one sees it.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startPeer starts a process that works with the segment of key.
func startPeer(key string) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &peer{cmd: exec.Command(self, "peer", key, "--store", store)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

// tell gives the process an order.
func (p *peer) tell(order string) error {
	_, err := io.WriteString(p.in, order+"\n")
	return err
}

// answer waits for the answer to an order.
func (p *peer) answer() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the second process has ended: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

func (p *peer) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func newPeer() *cobra.Command {
	return &cobra.Command{
		Use:    "peer KEY",
		Short:  "The second process of tour and bench",
		Hidden: true,
		Args:   oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			seg, err := shm.Attach(args[0], storeOptions()...)
			if err != nil {
				return err
			}
			defer seg.Close()
			for in := bufio.NewScanner(cmd.InOrStdin()); in.Scan(); {
				reply, err := obey(cmd.Context(), seg, in.Text())
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), reply)
			}
			return nil
		},
	}
}

// obey does what an order asks for.
func obey(ctx context.Context, seg *shm.Segment, order string) (reply string, err error) {
	switch order {
	case "attach":
	case "wait":
		text := make([]byte, len(tourText))
		if _, err = seg.Wait(ctx, 0); err == nil {
			_, _, err = seg.Snapshot(text)
		}
		return string(text), err
	case "lock":
		err = seg.Lock()
	case "unlock":
		err = seg.Unlock()
	case "break":
		if err = seg.Lock(); err == nil {
			copy(seg.Data(), tourText[:len(tourText)/2])
		}
	case "take turns":
		for err == nil {
			err = takeTurn(ctx, seg, 1)
		}
	}
	return "done", err
}

// takeTurn waits until the number of the turn, with which the segment begins, has a
// parity, and adds one: even turns are the first process's, odd ones the second's.
func takeTurn(ctx context.Context, seg *shm.Segment, parity uint64) error {
	ready := func(data []byte) bool { return binary.NativeEndian.Uint64(data)%2 == parity }
	return seg.UpdateWhen(ctx, ready, func(data []byte) error {
		binary.NativeEndian.PutUint64(data, binary.NativeEndian.Uint64(data)+1)
		return nil
	})
}
