/* The life of a segment: create, attach, detach, remove, sweep. See README.md.
 *
 * One key, one directory entry (path), several files (inodes), three processes. A process may be
 * slow or die between any two steps; all locks of a dead process are released by the kernel, and
 * that it is dead can be told (presence.pml shows how).
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef N
#define N 3                /* processes; one more creates and detaches when they are done */
#endif
#ifndef ROUNDS
#define ROUNDS 2           /* calls of each: create, attach, remove or sweep; and detach */
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
#ifndef S
#define S 2                /* slots in the header; read one by one */
#endif
#ifndef MOVES
#define MOVES 1            /* how often a process attaches a second time, and detaches the first, in a round */
#endif
#define I (N+2)            /* files that can exist at once: one at the path, one in each hand */

/* How a second attachment of a process that has one already finds its slot without the door. */
#define BY_DOOR  0         /* it does not: it takes the door as everybody does */
#define UPWARDS  1         /* only a slot above the lowest that the process holds, else by the door */
#define COUNTED  2         /* any slot, then claims++; a scan that found nobody and sees claims moved scans again */
#define ANYWHERE 3         /* any slot (wrong: a scan can miss a process that moves from one slot to another) */
#ifndef SECOND
#define SECOND UPWARDS
#endif

#define FRESH 0            /* empty file: opened with O_CREAT, nothing in it yet */
#define MAKING 1
#define LIVE 2
#define DEAD 3
#define REMOVED 4

byte path = 0;             /* the inode that the key's name leads to; 0 = none */
byte state[I+1];
byte door[I+1];            /* who holds the flock of the inode */
byte claims[I+1];          /* COUNTED */
byte slot[(I+1)*S];        /* whose the slot is; 0 = free */
byte hand[N+2];            /* inode that the process has open (so its number is not used again) */
bool alive[N+2];
byte crashes = 0, done = 0;
/* only for the checks */
byte att[N+2];             /* inode to which the process is attached */
bool removed[I+1];         /* somebody called Remove on it: losing the name is what he asked for */

#define OR_DIE :: (crashes < MAXCRASH) -> goto crash
#define SLOT(k) slot[my*S+(k)]

/* no attached process loses its file */
#define CHECK_UNLINK(ino) \
	k = 1; do \
	:: k > N+1 -> break \
	:: else -> assert(!(ino != 0 && att[k] == ino && alive[k] && !removed[ino])); k++ \
	od; k = 0

proctype P(byte me) {
	byte r = 0, my = 0, k = 0, c = 0;
	byte own = 0;              /* my slot + 1 */
	byte two = 0;              /* my second slot + 1 */
	byte op = 0;               /* what this round does */
	bool any = 0;              /* what the scan found */
	bool det = 0;              /* the scan is a detach's */
	byte moves = 0;
#define CREATE 0
#define ATTACH 1
#define REMOVE 2
#define SWEEP  3

	if :: me > N -> (done == N) :: else fi;
again:
	atomic {
		hand[me] = 0; my = 0; any = 0; det = 0; c = 0; own = 0; two = 0; k = 0; moves = 0;
		if
		:: r >= (me > N -> 1 : ROUNDS) -> goto fin
		:: else -> r++
		fi;
		if
		:: op = CREATE
		:: me <= N -> op = ATTACH
		:: me <= N -> op = REMOVE
		:: me <= N -> op = SWEEP
		fi
	}
open:
	if OR_DIE
	:: atomic {
		hand[me] = 0; my = 0; k = 0;
		if
		:: path != 0 -> my = path; hand[me] = my
		:: path == 0 && op != CREATE -> goto again              /* not found */
		:: path == 0 && op == CREATE ->                          /* O_CREAT: a file number nobody uses */
			k = 1;
			do
			:: hand[1] == k || hand[2] == k || hand[3] == k || hand[N+1] == k -> k++
			:: else -> break
			od;
			my = k; hand[me] = my; path = my;
			state[my] = FRESH; door[my] = 0; claims[my] = 0; removed[my] = 0;
			k = 0; do :: k >= S -> break :: else -> SLOT(k) = 0; k++ od; k = 0
		fi
	   }
	fi;
take_door:
	if OR_DIE
	:: atomic { door[my] == 0 -> door[my] = me }
	fi;
still_linked:
	if OR_DIE
#ifndef M_NO_STILL_LINKED
	:: atomic { path != my -> door[my] = 0; goto open }
	:: path == my
#else
	:: true
#endif
	fi;
examine:
	if OR_DIE
	:: atomic { op == REMOVE -> state[my] = REMOVED; removed[my] = 1; goto unlink }
	:: atomic { op == CREATE && state[my] == FRESH -> state[my] = MAKING; goto claim }
#ifdef M_NO_STATE_CHECK
	:: atomic { op != REMOVE && state[my] != FRESH -> k = 0; any = 0; det = 0; c = claims[my]; goto scan }
#endif
	:: atomic { op != REMOVE && state[my] == LIVE -> k = 0; any = 0; det = 0; c = claims[my]; goto scan }
	:: atomic { op != REMOVE && state[my] != LIVE && !(op == CREATE && state[my] == FRESH) -> goto destroy }
	fi;

scan:	/* is any slot's process alive? One slot after the other; nothing stops the world meanwhile */
	if OR_DIE
	:: atomic { k < S && SLOT(k) != 0 && alive[SLOT(k)] -> any = 1; k = 0; goto scanned }
	:: atomic { k < S && !(SLOT(k) != 0 && alive[SLOT(k)]) -> k++;
		if :: SECOND != COUNTED && k == S -> k = 0; goto scanned :: else -> goto scan fi }
	:: atomic { SECOND == COUNTED && k == S -> k = 0;
		if :: c != claims[my] -> c = claims[my]; goto scan :: else -> goto scanned fi }
	fi;
scanned:
	atomic {
		if
#ifdef M_NO_PROBE                  /* live is what says so */
		:: door[my] == me && !any && !det -> if :: op == ATTACH -> goto claim :: else -> goto let_go fi
#endif
		:: det && door[my] != me && any -> goto again      /* detach: somebody else is there */
		:: det && door[my] != me && !any -> goto may_be_last
		:: door[my] == me && !any -> goto destroy
		:: door[my] == me && any && !det && op == ATTACH -> any = 0; c = 0; goto claim
		:: door[my] == me && any && (det || op != ATTACH) -> any = 0   /* "exists"; nothing to sweep; not the last */
		fi
	}
let_go:
	if OR_DIE
	:: atomic { assert(me <= N || det);            /* the last create succeeds, the first time */
		door[my] = 0;
#ifdef M_NO_LOOK_AGAIN
		goto again
#endif
	}
	fi;
look_again:	/* one that found our door held and did not wait for it relies on us */
	atomic { det = 1; k = 0; any = 0; c = claims[my]; goto scan };

claim:
#ifdef M_CLAIM_LATE
	if OR_DIE
	:: door[my] = 0
	fi;
#endif
	/* the slot, under the door (here and by reaping the slots of the dead) */
	if OR_DIE
	:: atomic {
		k = 0;
		do
		:: k >= S -> break
		:: k < S && (SLOT(k) == 0 || !alive[SLOT(k)]) -> break
		:: else -> k++
		od;
		if
		:: k >= S -> k = 0; goto let_go                         /* no slot free: an error */
		:: else -> SLOT(k) = me; own = k+1; k = 0
		fi
	   }
	fi;
publish:
	if OR_DIE
	:: atomic { state[my] = LIVE; att[me] = my;
		assert(path == my && !removed[my]);
		/* attached processes share one file */
		k = 1; do
		:: k > N+1 -> break
		:: else -> assert(!(alive[k] && att[k] != 0 && att[k] != my && !removed[att[k]])); k++
		od; k = 0 }
	fi;
	if OR_DIE
	:: atomic { door[my] == me -> door[my] = 0 }
	:: door[my] != me
	fi;

attached:
	if OR_DIE
	:: true -> goto detach
	:: (SECOND != BY_DOOR && me <= N && moves < MOVES) -> moves++
	fi;
second:		/* another attachment of this process: it claims its slot without the door ... */
	if OR_DIE
	:: atomic {
		/* Which slot is a matter of chance: others come and go. */
		if
		:: path != my || state[my] != LIVE -> goto detach       /* removed: then as everybody does */
		:: path == my && SLOT(0) == 0 && SECOND != UPWARDS -> SLOT(0) = me; two = 1
		:: path == my && SLOT(S-1) == 0 && own < S -> SLOT(S-1) = me; two = S
#if S > 2
		:: path == my && SLOT(1) == 0 && (SECOND != UPWARDS || own == 1) -> SLOT(1) = me; two = 2
#endif
		:: else -> goto detach
		fi
	   }
	fi;
counted:
	if OR_DIE
	:: SECOND == COUNTED -> claims[my]++
	:: SECOND != COUNTED
	fi;
	if OR_DIE	/* ... and then the first one is detached: not the last of this process */
	:: atomic { SLOT(own-1) = 0; own = two; two = 0 }
	fi;
	goto attached;

detach:
	if OR_DIE
#ifndef M_CLEAR_AFTER_SCAN
	:: atomic { SLOT(own-1) = 0; own = 0; moves = 0; att[me] = 0; det = 1; k = 0; any = 0; c = claims[my]; goto scan }
#else
	:: atomic { k = 0; any = 0;
		do
		:: k >= S -> break
		:: else -> if :: k+1 != own && SLOT(k) != 0 && alive[SLOT(k)] -> any = 1 :: else fi; k++
		od; k = 0 }
	fi;
	if OR_DIE
	:: atomic { SLOT(own-1) = 0; own = 0; moves = 0; att[me] = 0; det = 1; goto scanned }
#endif
	fi;

may_be_last:
	if OR_DIE
	:: path != my -> goto again                                  /* removed, or destroyed by another */
	:: path == my
	fi;
	if OR_DIE
	:: atomic { door[my] == 0 -> door[my] = me }
	:: door[my] != 0 -> goto again                               /* waited long enough: the holder looks again */
	fi;
	if OR_DIE
#ifndef M_NO_STILL_LINKED_LAST
	:: atomic { path != my -> door[my] = 0; goto again }
	:: path == my
#else
	:: true
#endif
	fi;
#ifndef M_NO_RESCAN
scan_again:
	atomic { det = 1; k = 0; any = 0; c = claims[my]; goto scan };
#endif

destroy:
	if OR_DIE
	:: state[my] = DEAD
	fi;
unlink:
	if OR_DIE
	:: atomic { CHECK_UNLINK(path); path = 0 }
	fi;
	if OR_DIE
	:: door[my] = 0
	fi;
	if
	:: !det && op == CREATE -> goto open
	:: else -> goto again
	fi;

crash:
	atomic {
		crashes++; alive[me] = false; hand[me] = 0;
		k = 1; do :: k > I -> break :: else -> if :: door[k] == me -> door[k] = 0 :: else fi; k++ od
	}
fin:
	atomic {
		r = 0; my = 0; k = 0; own = 0; op = 0; two = 0; any = 0; det = 0; c = 0; moves = 0;
		if
		:: me <= N -> done++; assert(!(done == N && crashes == 0 && path != 0))   /* without crashes nothing is left */
		:: me > N -> assert(!(alive[me] && path != 0))                               /* one create and detach tidies up */
		fi
	}
}
init { byte k = 1; atomic { do :: k > N+1 -> break :: else -> alive[k] = true; run P(k); k++ od } }
