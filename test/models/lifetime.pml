/* The life of a segment: create, attach, detach, remove, sweep. See README.md.
 *
 * One key, one directory entry (path), several files (inodes), N processes; one more creates,
 * attaches or opens, and detaches, when they are done. The kernel's locks on each file:
 *   flk   the file lock (flock, exclusive)
 *   slk   the slot locks, one for each slot. Held as long as the process is attached.
 * A process may be slow or die between any two steps. When it dies, the kernel releases its locks,
 * one after the other, in any order, while other processes run.
 *
 * A step that an option of an "if" begins with must not itself be an "if" with an "else": spin would
 * take that for the else of all options, and a process that may crash would never go there.
 *
 * Labels name the steps; the code names the same steps in its comments. The steps of the lock word
 * (release_word, recover_word, take_over) are in lock.pml.
 */
#ifndef N
#define N 3                /* processes */
#endif
#ifndef ROUNDS
#define ROUNDS 2           /* calls of each: see OPS; and detach */
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
#ifndef S
#define S 2                /* slots */
#endif
#ifndef MOVES
#define MOVES 0            /* second attachments of an attached process, in a round */
#endif
/* REFS: the reference count, which decides nothing. SIBLINGS: the slot locks are sibling files: the
   question whether a process is attached is one for each slot that is taken, and a second attachment
   needs the file lock. STICKY: unlinking may not be permitted. FAILS: calls fail half-way. */
#define I (N+2)            /* files that can exist at once: one at the path, one in each hand */

#define OPEN   1           /* create or attach */
#define CREATE 2           /* or "exists" */
#define ATTACH 4           /* or "not found" */
#define REMOVE 8
#define SWEEP  16          /* removes garbage */
#ifndef OPS
#define OPS 31             /* which of these a round may be */
#endif

#define EMPTY 0
#define MAKING 1
#define LIVE 2
#define DEAD 3
#define REMOVED 4

byte path = 0;             /* the inode that the key's name leads to; 0: none */
byte state[I+1];
byte flk[I+1];             /* which process holds the file lock */
byte slk[(I+1)*S];         /* which process holds the slot lock */
byte slot[(I+1)*S];        /* which process has written the slot; 0: free */
#ifdef REFS
byte refs[I+1];
#endif
byte hand[N+2];            /* the inode that the process has open (so its number is not used again) */
byte crashes = 0, done = 0;
/* only for the checks */
bool alive[N+2];
byte att[N+2];             /* the inode to which the process is attached */
byte natt[N+2];            /* how often */
bool transit[N+2];         /* it is attaching, detaching, dying, or holds a slot lock for another reason */
bool removed[I+1];         /* a process has called Remove: losing the name is what it asked for */
bool inited[I+1];          /* Init has run */

#define OR_DIE :: (crashes < MAXCRASH && me <= N) -> goto crash
#define SLK(k) slk[my*S+(k)]
#define SLOT(k) slot[my*S+(k)]
#define HELD(k) (SLK(k) != 0 && SLK(k) != me)
#ifdef SIBLINGS
#define SEEN(k) (SLOT(k) != 0 && HELD(k))
#else
#define SEEN(k) HELD(k)
#endif
#if S == 3
#define ANYSEEN (SEEN(0) || SEEN(1) || SEEN(2))
#define ANYDEAD (DEADSLOT(0) || DEADSLOT(1) || DEADSLOT(2))
#else
#define ANYSEEN (SEEN(0) || SEEN(1))
#define ANYDEAD (DEADSLOT(0) || DEADSLOT(1))
#endif
#define DEADSLOT(k) (SLOT(k) != 0 && SLK(k) == 0)
#define ON(p) ((alive[p] && att[p] == my) -> natt[p] : 0)
#define CREATES (op == OPEN || op == CREATE)

#ifdef M_NO_STATE
#define STATE_OK (state[my] != EMPTY)
#else
#define STATE_OK (state[my] == LIVE)
#endif
#ifdef M_NO_ASK
#define ATTACHED true
#else
#define ATTACHED ANYSEEN
#endif

inline clear_file(i) {
	state[i] = EMPTY; removed[i] = 0; inited[i] = 0;
#ifdef REFS
	refs[i] = 0;
#endif
	k = 0; do :: k >= S -> break :: else -> slot[i*S+k] = 0; k++ od; k = 0
}
/* a file without a name that no process has open is freed */
inline gc(i) {
	if
	:: i != 0 && path != i && hand[1] != i && hand[2] != i && hand[N] != i && hand[N+1] != i ->
		clear_file(i); flk[i] = 0;
		k = 0; do :: k >= S -> break :: else -> slk[i*S+k] = 0; k++ od; k = 0
	:: else
	fi
}
#ifdef STICKY
#define USED(u) used = u
#else
#define USED(u) skip
#endif
/* no attached process loses its file */
inline check_unlink() {
	k = 1; do
	:: k > N+1 -> break
	:: else -> assert(!(path != 0 && att[k] == path && alive[k] && !removed[path])); k++
	od; k = 0
}
/* never below the number of live attachments; without crashes exact, when no process is in between */
inline check_refs() {
#ifdef REFS
	n = 0; t = 0; k = 1; do
	:: k > N+1 -> break
	:: else -> n = n + ON(k); t = t + (transit[k] && hand[k] == my); k++
	od; k = 0;
	assert(refs[my] >= n);
	assert(t > 0 || ANYDEAD || refs[my] == n || crashes > 0);
	n = 0; t = 0
#else
	skip
#endif
}
/* attached processes share one file, unless one was removed, and find it initialised */
inline check_attached() {
	assert(inited[my]);
	k = 1; do
	:: k > N+1 -> break
	:: else -> assert(!(alive[k] && att[k] != 0 && att[k] != my && !removed[att[k]] && !removed[my])); k++
	od; k = 0;
	check_refs()
}
/* slot k of this file is no live process's */
#define CHECK_DEAD(k) assert(SLOT(k) == 0 || !alive[SLOT(k)] || SLOT(k) == me)

proctype P(byte me) {
	byte r = 0, my = 0, k = 0;
#ifdef REFS
	byte n = 0, t = 0;
#endif
	byte s = 0;                /* the slot that I am claiming or recovering, + 1 */
	byte own = 0, two = 0;     /* my slots, + 1 */
	byte op = 0, moves = 0;
	bool made = 0;             /* I am making the segment */
	bool other = 0;            /* the file lock that I hold is not that of my segment's file */
	bool unused = 0;
#ifdef STICKY
	bool used = 0;             /* processes are attached to the file that I unlink */
#endif

	if :: me > N -> (done == N) :: else fi;
again:
	atomic {
		hand[me] = 0; gc(my); my = 0; own = 0; two = 0; s = 0; moves = 0; made = 0; other = 0; unused = 0; op = 0;
		if
		:: r >= (me > N -> 1 : ROUNDS) -> goto fin
		:: else -> r++
		fi;
		if
		:: (OPS & OPEN) || me > N -> op = OPEN
		:: (OPS & CREATE) || me > N -> op = CREATE
		:: (OPS & ATTACH) -> op = ATTACH
		:: (OPS & REMOVE) && me <= N -> op = REMOVE
		:: (OPS & SWEEP) && me <= N -> op = SWEEP
		fi
	}
open:	/* [create_file]: O_CREAT|O_EXCL; if there is a file, [open] */
	if OR_DIE
	:: atomic {
		hand[me] = 0; gc(my); my = 0; made = 0;
		if
		:: path != 0 -> my = path; hand[me] = my
		:: path == 0 && !CREATES -> goto again                  /* not found */
		:: path == 0 && CREATES ->                               /* a file number that is not in use */
			k = 1;
			do
			:: hand[1] == k || hand[2] == k || hand[N] == k || hand[N+1] == k -> k++
			:: else -> break
			od;
			my = k; hand[me] = my; path = my; k = 0
		fi
	   }
	fi;
file_lock:
	if OR_DIE
	:: atomic { flk[my] == 0 -> flk[my] = me }
	:: atomic { flk[my] != 0 && me <= N -> goto again }             /* waited long enough: an error */
	fi;
still_linked:
	if OR_DIE
#ifndef M_NO_STILL_LINKED
	:: atomic { path != my -> flk[my] = 0; goto open }
	:: path == my
#else
	:: true
#endif
	fi;
examine:
	if OR_DIE
	:: atomic { CREATES && state[my] == EMPTY -> made = 1; state[my] = MAKING; goto claim }	/* [write_header] [allocate] [map] */
#ifdef STICKY                      /* another user's empty file is removed, if that is permitted */
	:: atomic { CREATES && state[my] == EMPTY -> USED(0); goto unlink }
#endif
#ifdef M_REMOVE_NO_STATE
	:: atomic { op == REMOVE -> goto unlink }
#else
	:: atomic { op == REMOVE && ATTACHED && state[my] == LIVE -> state[my] = REMOVED; removed[my] = 1; USED(1); goto unlink }	/* [removed] */
#endif
	:: atomic { !(op == REMOVE && ATTACHED && state[my] == LIVE) && !(CREATES && state[my] == EMPTY) ->
		made = 0;
		if
		:: op != REMOVE && STATE_OK && ATTACHED ->
			if
			:: op == OPEN || op == ATTACH -> goto claim
			:: op == CREATE || op == SWEEP -> goto let_go           /* exists; not garbage */
			fi
#ifdef M_EMPTY_STAYS               /* a call that only attaches leaves an empty file alone */
		:: else -> if :: state[my] == EMPTY && op == ATTACH -> flk[my] = 0; goto again :: else -> goto dead fi
#else
		:: else ->
			if
			:: state[my] == EMPTY || state[my] == MAKING -> USED(0); goto unlink
			:: state[my] != EMPTY && state[my] != MAKING && ATTACHED -> USED(1); goto unlink	/* a Remove has died */
			:: else -> goto dead
			fi
#endif
		fi
	   }
	fi;

claim:	/* a slot whose lock can be had; with the file lock held, or another attachment of this process */
#ifdef M_CLAIM_LATE
	if OR_DIE
	:: atomic { flk[my] == me -> flk[my] = 0 }
	:: flk[my] != me
	fi;
#endif
	if OR_DIE
	:: atomic { true ->
		if
		:: SLK(0) == 0 -> s = 1
		:: !made && SLK(S-1) == 0 -> s = S
		:: made && SLK(0) != 0 && SLK(S-1) == 0 -> s = S         /* a dying process still has the first */
#if S == 3
		:: !made && SLK(1) == 0 -> s = 2
#endif
#ifdef FAILS                       /* or another error; or the slots were taken one after the other */
		:: own == 0 && !made && me <= N -> unused = 1; goto let_go
		:: made && me <= N -> USED(0); goto unlink              /* [allocate] has failed, for instance */
#endif
		:: else ->                                               /* all taken */
			if
			:: own != 0 -> goto unlock_file
			:: own == 0 && !made -> goto let_go
			:: own == 0 && made -> assert(me <= N); USED(0); goto unlink
			fi
		fi;
		SLK(s-1) = me; transit[me] = 1
	   }
	fi;
recover_slot:
	if OR_DIE
#ifdef M_NO_RECOVER
	:: goto refs_up
#else
	:: atomic { SLOT(s-1) == 0 -> goto refs_up }
	:: atomic { SLOT(s-1) != 0 -> CHECK_DEAD(s-1); SLOT(s-1) = 0 }
#endif
	fi;
#ifdef REFS
recover_refs:
	if OR_DIE
	:: atomic { refs[my]--; check_refs() }
	fi;
#endif
refs_up:
#if defined(REFS) && !defined(M_REFS_UP_LATE)
	if OR_DIE
	:: refs[my]++
	fi;
#endif
publish:
	if OR_DIE
	:: atomic { CHECK_DEAD(s-1); SLOT(s-1) = me;
#if defined(REFS) && defined(M_REFS_UP_LATE)
	   }
	fi;
	if OR_DIE
	:: atomic { refs[my]++;
#endif
		if
		:: made -> own = s
		:: !made && own == 0 -> assert(path == my && !removed[my] && state[my] == LIVE); own = s; att[me] = my; natt[me] = 1; check_attached()
		:: !made && own != 0 -> two = s; natt[me] = 2; check_attached()
		fi;
		s = 0; transit[me] = made;
		if :: made :: else -> goto unlock_file fi
	   }
	fi;
#ifdef M_LIVE_FIRST
	if OR_DIE
	:: state[my] = LIVE
	fi;
#endif
init_data:	/* [init]; its error undoes the creation */
	if OR_DIE
	:: inited[my] = 1
#ifdef FAILS
	:: atomic { me <= N -> goto clear_slot }
#endif
	fi;
live:
	if OR_DIE
	:: atomic { state[my] = LIVE; made = 0; transit[me] = 0; att[me] = my; natt[me] = 1; assert(path == my && !removed[my]); check_attached() }
	fi;
unlock_file:
	if OR_DIE
	:: atomic { flk[my] == me -> flk[my] = 0 }
	:: flk[my] != me
	fi;

attached:
	if OR_DIE
	:: true -> goto detach
#if MOVES > 0
	:: atomic { me <= N && moves < MOVES && two == 0 -> moves++ }
#endif
	fi;
second:	/* another attachment of this process */
	if OR_DIE
	:: atomic { state[my] != LIVE -> goto attached }
#if defined(SIBLINGS) && !defined(M_SECOND_UNLOCKED)
	:: atomic { state[my] == LIVE && path == my && flk[my] == 0 -> flk[my] = me }
	:: atomic { path != my || flk[my] != 0 -> goto attached }       /* the attachment to another file would be another process's, here */
#else
	:: atomic { state[my] == LIVE -> goto claim }                   /* without the file lock */
#endif
	fi;
#if defined(SIBLINGS) && !defined(M_SECOND_UNLOCKED)
	if OR_DIE
	:: atomic { path == my && state[my] == LIVE -> goto claim }
	:: atomic { path != my || state[my] != LIVE -> goto unlock_file }
	fi;
#endif

detach:
#ifdef M_ASK_FIRST
	if OR_DIE
	:: atomic { unused = (two == 0 && !ANYSEEN) }
	fi;
#endif
#ifdef M_RELEASE_SLOT_FIRST
	if OR_DIE
	:: atomic { SLK(own-1) = 0 }
	fi;
#endif
#if defined(REFS) && defined(M_REFS_DOWN_FIRST)
	if OR_DIE
	:: atomic { refs[my]--; transit[me] = 1; check_refs() }
	fi;
#endif
clear_slot:
	if OR_DIE
	:: atomic {
		transit[me] = 1;
		if :: made :: else -> check_refs(); natt[me]--; if :: natt[me] == 0 -> att[me] = 0 :: else fi fi;
		assert(SLOT(own-1) == me); SLOT(own-1) = 0 }
	fi;
#if defined(REFS) && !defined(M_REFS_DOWN_FIRST)
refs_down:
	if OR_DIE
	:: atomic { refs[my]--; check_refs() }
	fi;
#endif
release_slot:
	if OR_DIE
	:: atomic {
#ifndef M_RELEASE_SLOT_FIRST
		assert(SLK(own-1) == me); SLK(own-1) = 0;
#endif
		transit[me] = 0; own = 0;
#ifdef M_ASK_FIRST
		if :: !made && two == 0 && unused -> unused = 0; goto file_lock_last :: !made && two == 0 && !unused -> goto again :: else fi;
#endif
		if
		:: made -> USED(0); goto unlink                          /* Init has failed */
#ifndef M_FORGETS_OWN
		:: !made && two != 0 -> own = two; two = 0; goto attached    /* not the last of this process */
#else
		:: !made && two != 0 -> goto ask
#endif
		:: else -> goto ask
		fi }
	fi;

let_go:	/* a call that has neither attached nor destroyed */
	if OR_DIE
	:: atomic { assert(me <= N);                 /* the last process succeeds, at the first try */
		flk[my] = 0;
#ifdef M_NO_LOOK_AGAIN
		goto again;
#endif
#ifdef M_NO_LOOK_AGAIN_EXISTS
		if :: op == CREATE -> goto again :: else fi
#endif
#ifdef M_NO_LOOK_AGAIN_SWEEP
		if :: op == SWEEP -> goto again :: else fi
#endif
#ifdef M_NO_LOOK_AGAIN_FAILS
		if :: unused -> goto again :: else fi
#endif
#ifdef M_NO_LOOK_AGAIN_FULL
		if :: !unused && (op == OPEN || op == ATTACH) -> goto again :: else fi
#endif
	   }
	fi;
ask:	/* after a detach; and [look_again] after letting go of the file lock, since a detach that has given up waiting for it relies on that */
#ifdef SIBLINGS
	if OR_DIE
	:: atomic { s < S && SEEN(s) -> s = 0; goto again }
	:: atomic { s < S && !SEEN(s) -> s++; goto ask }
	:: atomic { s >= S -> s = 0 }
	fi;
#else
	if OR_DIE
	:: ANYSEEN -> goto again
	:: !ANYSEEN
	fi;
#endif
file_lock_last:	/* of the file that is at the path */
	if OR_DIE
	:: atomic { path == 0 -> goto again }
	:: atomic { path == my && flk[my] == 0 -> flk[my] = me }
	:: atomic { path == my && flk[my] != 0 && me <= N -> goto waiting }
	:: atomic { path != 0 && path != my -> goto not_mine }
	fi;
	goto still_linked_last;
waiting:
	if OR_DIE
	:: atomic { flk[my] == 0 -> flk[my] = me }
#ifndef UNBOUNDED
	:: atomic { flk[my] != 0 && me <= N -> goto again }     /* waited long enough: the holder looks again */
#endif
	fi;
still_linked_last:
	if OR_DIE
#ifndef M_NO_STILL_LINKED_LAST
	:: atomic { path != my -> flk[my] = 0; if :: path == 0 -> goto again :: else -> goto not_mine fi }
	:: path == my
#else
	:: true
#endif
	fi;
	if :: other -> goto let_go_other :: else fi;
ask_again:
#ifdef M_NO_ASK_AGAIN
	goto last;
#else
#ifdef SIBLINGS
	if OR_DIE
	:: atomic { s < S && SEEN(s) -> s = 0; goto not_last }
	:: atomic { s < S && !SEEN(s) -> s++; goto ask_again }
	:: atomic { s >= S -> s = 0; goto last }
	fi;
#else
	if OR_DIE
	:: ANYSEEN -> goto not_last
	:: !ANYSEEN -> goto last
	fi;
#endif
#endif
not_last:
	if OR_DIE
#ifdef M_NO_LOOK_AGAIN_DETACH
	:: atomic { flk[my] = 0; goto again }
#else
	:: atomic { flk[my] = 0; goto ask }
#endif
	fi;
not_mine:	/* the segment was removed, and the file at the path is another: its file lock is taken, and found to be the wrong one */
#ifdef ONLY_MINE
	goto again;
#else
	atomic { hand[me] = 0; gc(my); my = path; hand[me] = my; other = 1; if :: path == 0 -> goto again :: else -> goto waiting fi };
#endif
let_go_other:
	if OR_DIE
	:: atomic { flk[my] = 0; other = 0;
#ifdef M_NO_LOOK_AGAIN_OTHER
		goto again
#else
		goto ask
#endif
	   }
	fi;

last:
	op = 0;
dead:
	USED(0);
#ifndef M_NO_DEAD
	if OR_DIE
	:: state[my] = DEAD
	fi;
#endif
unlink:
	if OR_DIE
	:: atomic { true ->
#ifdef M_REMOVE_NO_STATE
		if :: op == REMOVE && path != 0 -> removed[path] = 1 :: else fi;
#endif
		check_unlink(); path = 0 }
#ifdef STICKY                      /* not permitted: the file is truncated to nothing */
#ifdef M_TRUNCATE_IN_USE
	:: atomic {
#else
	:: atomic { used -> if :: op == REMOVE -> state[my] = LIVE; removed[my] = 0 :: else fi;	/* an error */
#ifdef M_NO_LOOK_AGAIN_STICKY
		flk[my] = 0; goto again
#else
		goto let_go
#endif
	   }
	:: atomic { !used ->
#endif
		k = 1; do
		:: k > N+1 -> break
		:: else -> assert(!(att[k] == my && alive[k])); k++
		od;
		clear_file(my) }
#endif
	fi;
	if OR_DIE
	:: atomic { flk[my] = 0; if :: CREATES && !made -> goto open :: else -> goto again fi }
	fi;

crash:
	atomic { crashes++; alive[me] = false; USED(0); transit[me] = (my != 0); s = 0; own = 0; two = 0; op = 0; made = 0; other = 0; unused = 0; moves = 0; r = 0; att[me] = 0; natt[me] = 0 };
vanish:
#ifdef ATOMIC_DEATH
	atomic {
		flk[my] = (flk[my] == me -> 0 : flk[my]);
		k = 0; do :: k >= S -> break :: else -> if :: SLK(k) == me -> SLK(k) = 0 :: else fi; k++ od; k = 0;
		transit[me] = 0; hand[me] = 0; gc(my); my = 0
	};
#else
	if
	:: atomic { my != 0 && flk[my] == me -> flk[my] = 0; goto vanish }
	:: atomic { my != 0 && SLK(0) == me -> SLK(0) = 0; goto vanish }
	:: atomic { my != 0 && SLK(S-1) == me -> SLK(S-1) = 0; goto vanish }
#if S == 3
	:: atomic { my != 0 && SLK(1) == me -> SLK(1) = 0; goto vanish }
#endif
	:: atomic { else -> transit[me] = 0; hand[me] = 0; gc(my); my = 0 }
	fi;
#endif
fin:
	atomic {
		r = 0;
#ifdef STICKY
#define NOTHING (path == 0 || state[path] == EMPTY )
#else
#define NOTHING (path == 0)
#endif
		if
		:: me <= N -> done++; assert(!(done == N && crashes == 0 && !NOTHING))     /* without crashes nothing is left */
			/* with crashes what is left is garbage */
			k = 0; do :: k >= S -> break :: else -> assert(!(done == N && path != 0 && slk[path*S+k] != 0)); k++ od; k = 0
		:: me > N -> assert(NOTHING)                            /* one more, and nothing is left; STICKY: but an empty file */
		fi
	}
}
init { byte k = 1; atomic { do :: k > N+1 -> break :: else -> alive[k] = true; run P(k); k++ od } }
