// Package stream passes messages between processes on one machine, through memory
// that they share: any number of writers, any number of readers, messages of any
// length up to half the ring.
//
//	s, err := stream.Open("frames", 64<<20)
//	…
//	err = s.Send(ctx, message)
//
//	s, err := stream.Open("frames", 64<<20)
//	…
//	sub, err := s.Subscribe()
//	for message, err := range sub.Messages(ctx) {
//		…
//	}
//
// # Which call when
//
//   - Either side may come first: [Open] creates the stream or attaches to it.
//   - Send a copy: [Stream.Send]. Write the message in place: [Stream.Reserve], then
//     [Reservation.Commit] or [Reservation.Abort]. Know that it was read:
//     [Stream.Flush]. Begin only when there is a reader: [Stream.AwaitReader].
//   - Every reader gets every message from now on: [Stream.Subscribe]; from the
//     oldest that is still there: with [FromOldest].
//   - A reader that only wants what is new, and holds nobody up: [Latest].
//   - Jobs, each for one of several workers: [Group].
//   - Bytes rather than messages: [Stream.Writer] and [Subscription.Reader].
//   - Look: [Stream.Info]; or [Stat], by key.
//
// # What is promised
//
// A message is there for all or not at all: a writer that dies before Commit has
// sent nothing. Messages keep their order, except those that are delivered again.
//
// A reader that is behind holds up the writers when the ring is full, unless it is
// Latest. A Send that gives up says which reader that is. A reader that has died
// holds nobody up; a stopped one is alive.
//
// In a group, each message goes to one member. It is done when the member asks for
// the next one or closes its subscription; if the member dies before that, another
// member gets the message, when it asks for the next one, and
// [Subscription.Redelivered] says so; until then the message stays. A group without a
// live member holds nobody up; it goes on where it was when the next member comes,
// or at the oldest message that is still there. A process that joins the group and
// never calls Next takes no message and keeps those of the group, so that none is lost
// while there is no worker.
//
// A reader gets io.EOF when all writers have closed their streams and it has read
// everything, and [ErrWriterDied] if one of them died instead. Writers that had closed
// before it subscribed do not count, except for a group and with FromOldest.
//
// Waiting does not poll: a reader sleeps, and takes no processor time. Where messages
// come often, it spins for up to 40 microseconds before it sleeps.
//
// # What is not promised
//
// Messages are not kept over a reboot, nor when no process has the stream open any
// more. A stream is as trustworthy as the users who can write it.
//
// Errors are of type *shm.Error. The kinds are those of this package and of shm.
//
// FORMAT.md describes the ring for other languages. One writer at a time and a
// position for each reader are from LMAX's Disruptor and Aeron; groups and redelivery
// from Redis Streams.
package stream // import "qshm/shm/stream"
