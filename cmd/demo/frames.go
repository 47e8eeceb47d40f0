package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/frames"
	"qshm/cmd/demo/internal/units"
	"qshm/shm/stream"
)

func newFrames() *cobra.Command {
	var (
		watch, all bool
		fps, count int
		size       = frames.Size{Width: 1920, Height: 1080}
	)
	cmd := keyCommand("frames", "Hand pictures to other processes, in place", func(cmd *cobra.Command, key string) error {
		switch {
		case fps < 1 || fps > 1000:
			return usage(cmd, "--fps %d: want 1 to 1000", fps)
		case cmd.Flags().Changed("count") && count < 1:
			return usage(cmd, "--count %d: want a number of pictures", count)
		}
		err := errors.Join(need(cmd, "watch", "all"), exclude(cmd, "watch", "size", "fps", "count"))
		if err != nil {
			return err
		}
		s, err := openStream(cmd, key, 4*size.Length())
		if err != nil {
			return err
		}
		defer s.Close()
		if watch {
			return watchFrames(cmd, s, all, frames.NewViewer(cmd.OutOrStdout()))
		}
		return film(cmd, s, size, fps, count)
	})
	flags := cmd.Flags()
	flags.BoolVarP(&watch, "watch", "w", false, "show the pictures of the camera")
	flags.BoolVar(&all, "all", false, "with --watch, take every picture, and make the camera wait if need be")
	flags.Var(&size, "size", "the size of a picture, in points")
	flags.IntVar(&fps, "fps", 60, "write `N` pictures a second")
	flags.IntVarP(&count, "count", "n", 0, "end after `N` pictures")
	return withHelp(cmd)
}

// film is the camera.
func film(cmd *cobra.Command, s *stream.Stream, size frames.Size, fps, count int) error {
	ctx := cmd.Context()
	if most := s.MaxMessage(); size.Length() > most {
		return exit.Errorf(exit.Failed, "the ring of %q was made for smaller pictures: one of %v has %s, and the ring takes up to %d; end the other runs, and start this one first",
			s.Key(), &size, units.Count(size.Length(), "byte"), most)
	}
	tick := time.NewTicker(time.Second / time.Duration(fps))
	defer tick.Stop()
	for n := 0; count == 0 || n < count; n++ {
		r, err := s.Reserve(ctx, size.Length())
		if err != nil {
			return err
		}
		size.Write(r.Bytes(), n)
		if err := r.Commit(); err != nil {
			return err
		}
		if n == 0 {
			say(cmd, "filming %v, %d a second; Ctrl-C ends", &size, fps)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Flush(ctx)
}

// watchFrames is a run with --watch.
func watchFrames(cmd *cobra.Command, s *stream.Stream, all bool, v *frames.Viewer) error {
	var opts []stream.Option
	if !all {
		opts = append(opts, stream.Latest())
	}
	sub, err := s.Subscribe(opts...)
	if err != nil {
		return err
	}
	say(cmd, "watching %q; Ctrl-C ends", s.Key())
	defer v.End()
	for frame, err := range sub.Messages(cmd.Context()) {
		if err == nil {
			err = v.Take(frame, sub.Lost())
		}
		switch {
		case errors.Is(err, stream.ErrWriterDied):
			return exit.Errorf(exit.Abandoned, "the camera was killed; its last picture is whole")
		case errors.Is(err, frames.ErrForeign):
			return exit.Errorf(exit.Failed, "%q has other contents, %v; name another KEY", s.Key(), err)
		case err != nil:
			return err
		}
	}
	return nil
}
