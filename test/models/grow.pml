/* Growing. See README.md.
 *
 * Attaching, removing and destroying are one step each here, with the file lock held: lifetime.pml is
 * about these. A file has a length, and memory behind some of it; the header says the size of the
 * data. Readers look at the size without any lock. A process may die between any two steps.
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef N
#define N 3
#endif
#ifndef ROUNDS
#define ROUNDS 1           /* attachments of each */
#endif
#ifndef MOVES
#define MOVES 2            /* calls of each attachment */
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
/* STICKY: unlinking is not permitted: a destroyed file is truncated, and used again. */

byte path = 0;             /* the inode that the key's name leads to; 0: none */
byte flk[N+2];             /* which process holds the file lock */
byte length[N+2];
byte memory[N+2];          /* how much of it is allocated */
byte size[N+2];            /* what the header says; 0: there is no segment in the file */
byte att[N+1];             /* the inode to which the process is attached: it holds a slot lock */
byte hand[N+1];            /* the inode whose file lock the process takes */
byte crashes = 0;

#define OR_DIE :: (crashes < MAXCRASH) -> goto crash
#define IN_USE(i) (att[1] == i || att[2] == i || att[N] == i)
#define OPEN(i) (IN_USE(i) || hand[1] == i || hand[2] == i || hand[N] == i)
#define DESTROY_IF_UNUSED(i) \
	if \
	:: i != 0 && path == i && flk[i] == 0 && !IN_USE(i) -> CLEAR(i) \
	:: else \
	fi
#ifdef STICKY
#define CLEAR(i) length[i] = 0; memory[i] = 0; size[i] = 0
#else
#define CLEAR(i) path = 0
#endif

proctype P(byte me) {
	byte r = 0, my = 0, f = 0, moves = 0;
	byte want = 0, before = 0, seen = 0, s = 0, l = 0, k = 0;
attach:
	atomic {
		my = 0; f = 0; seen = 0; moves = 0; hand[me] = 0;
		if :: r >= ROUNDS -> goto fin :: else -> r++ fi
	};
	if OR_DIE
	:: atomic { path == 0 ->
		k = 1; do :: OPEN(k) -> k++ :: else -> break od;
		my = k; k = 0; path = my; att[me] = my; flk[my] = 0; length[my] = 1; memory[my] = 1; size[my] = 1; seen = 1 }
	:: atomic { path != 0 && flk[path] == 0 -> my = path; att[me] = my;
		if
		:: size[my] == 0 -> length[my] = 1; memory[my] = 1; size[my] = 1
		:: else -> assert(length[my] >= size[my])
		fi;
		seen = size[my] }
	fi;
attached:
	if OR_DIE
	:: moves < MOVES -> moves++; want = 2; goto open
	:: moves < MOVES -> moves++; want = 3; goto open
	:: moves < MOVES -> moves++; goto read
	:: atomic { moves < MOVES && path != 0 && flk[path] == 0 -> moves++; path = 0; goto attached }   /* Remove */
	:: true -> goto detach
	fi;

open:
	if OR_DIE
	:: atomic { path == 0 -> want = 0; goto attached }            /* removed */
	:: atomic { path != 0 -> f = path; hand[me] = f }
	fi;
file_lock:
#ifndef M_NO_FILE_LOCK
	if OR_DIE
	:: atomic { flk[f] == 0 -> flk[f] = me }
	fi;
still_linked:
	if OR_DIE
	:: atomic { path != f -> flk[f] = 0; f = 0; hand[me] = 0; goto open }
	:: path == f
	fi;
#endif
#ifndef M_OTHER_FILE
	if OR_DIE
	:: f == my
	:: f != my -> goto unlock_file                                /* removed: an error */
	fi;
#endif
#ifdef M_GROW_UNCOUNTED            /* Detach does not wait for a Grow in progress */
	if
	:: true
	:: atomic { att[me] = 0; DESTROY_IF_UNUSED(my) }
	fi;
#endif
#ifndef M_NO_LOOK                  /* another process may have been faster */
	if OR_DIE
	:: size[my] < want
	:: size[my] >= want -> goto unlock_file
	fi;
#endif
#ifdef M_PUBLISH_FIRST
	if OR_DIE
	:: size[my] = want
	fi;
#endif
	if OR_DIE
	:: atomic { before = length[my];
#ifdef M_TRUSTS_LENGTH             /* as if what the file has already were allocated */
		k = length[my] + 1
#else
		k = size[my] + 1
#endif
	   }
	fi;
allocate_more:	/* the file is longer before all of its memory is there */
	if OR_DIE
	:: atomic { length[my] < want -> length[my] = want }
	:: length[my] >= want
	fi;
	do
	OR_DIE
	:: atomic { k <= want -> if :: memory[my] < k -> memory[my] = k :: else fi; k++ }
	:: k > want -> break
#ifndef M_PUBLISH_FIRST
	:: k <= want -> goto failed                                  /* no space: as before */
#endif
	od;
#ifndef M_PUBLISH_FIRST
publish_size:
	if OR_DIE
	:: atomic { assert(want > size[my] && att[me] == my); size[my] = want }
	fi;
#endif
	goto unlock_file;
failed:
#ifdef M_TRUNCATE_LATE
	if OR_DIE
	:: atomic { flk[f] == me -> flk[f] = 0 }
	fi;
#endif
	if OR_DIE
	:: atomic { length[my] = before; if :: memory[my] > before -> memory[my] = before :: else fi }
	fi;
unlock_file:
	if OR_DIE
	:: atomic { true -> if :: flk[f] == me -> flk[f] = 0 :: else fi; f = 0; hand[me] = 0; want = 0; before = 0; k = 0;
		if :: att[me] == 0 -> goto attach :: else -> goto attached fi }
	fi;

read:	/* the size, and then the length of the file: else it looks truncated */
#ifdef M_LENGTH_FIRST
	if OR_DIE
	:: l = length[my]
	fi;
	if OR_DIE
	:: s = size[my]
	fi;
#else
	if OR_DIE
	:: s = size[my]
	fi;
	if OR_DIE
	:: l = length[my]
	fi;
#endif
	if OR_DIE
	:: atomic {
		assert(s >= seen && l >= s);                             /* it never shrinks, and is not found truncated */
		assert(memory[my] >= s);                                 /* no access faults */
		seen = s; s = 0; l = 0; goto attached }
	fi;

detach:	/* the last process destroys the segment; if it cannot have the file lock, the holder looks again */
	if OR_DIE
	:: atomic { att[me] = 0; DESTROY_IF_UNUSED(my); goto attach }
	fi;

crash:
	atomic { crashes++; r = ROUNDS; want = 0; before = 0; s = 0; l = 0; k = 0; seen = 0; moves = 0 };
	if                             /* its locks vanish one after the other */
	:: atomic { att[me] = 0; my = 0 };
		atomic { if :: flk[f] == me -> flk[f] = 0 :: else fi; f = 0; hand[me] = 0 }
	:: atomic { true -> if :: flk[f] == me -> flk[f] = 0 :: else fi; f = 0; hand[me] = 0 };
		atomic { att[me] = 0; my = 0 }
	fi;
fin:
	skip
}

init { byte k = 1; atomic { do :: k > N -> break :: else -> run P(k); k++ od } }
