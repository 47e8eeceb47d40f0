/* The lock: a word that is taken by compare-and-swap, and on which those who must wait sleep.
 * See README.md.
 *
 * Word: owner (slot and the slot's generation; 0 = free)
 *       W  waiters: somebody may be asleep on the word
 *       H  overdue: somebody has waited 1 ms; only one that is itself overdue may take the word
 *       A  abandoned: a writer died inside; stays until an unlock that may have written
 *       version: unlocks that may have written, and deaths inside
 *
 * A compare-and-swap whose decision hangs on the word alone is one step here: the loop around it
 * tries until what it saw is what it replaces. Where other memory is read in between (whether the
 * owner is alive), it is two.
 *
 * Time: a sleep that is not cut short by a wake ends when the sleeper becomes overdue; an overdue
 * one sleeps for ever unless somebody has crashed or been stopped, so that a wake lost without a
 * crash shows as a deadlock.
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef N
#define N 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef MAXCRASH
#define MAXCRASH 0         /* processes that die, at any step */
#endif
#ifndef MAXSTOP
#define MAXSTOP 0          /* processes that are stopped for good, at any step */
#endif
#ifndef MAXCANCEL
#define MAXCANCEL 0        /* waiters that give up, at any moment of waiting */
#endif
/* PLAIN: nobody writes. TRY: rounds may be a TryLock. SNAP: rounds may be a snapshot.
   REUSE: NSLOT slots for N processes: slots are claimed, given back, reaped, claimed again. */
#ifdef REUSE
#define NSLOT 2
#else
#define NSLOT N
#endif

#define OWN(w) ((w) & 15)
#define SLOT(o) ((o) & 3)
#define GEN(o) ((o) >> 2)
#define W 16
#define H 32
#define A 64
#define VERSION 128
#define VER(w) ((w) / VERSION)

short word = 0;
byte token[NSLOT+1];       /* whose the slot is; 0 = free */
byte gen[NSLOT+1];         /* counts the claims of the slot */
bool alive[N+1];           /* what the probe of the process's presence says */
bool sleeping[4];          /* asleep in the kernel, on the word */
byte crashes = 0, stops = 0, cancels = 0;
byte d0 = 0, d1 = 0;       /* the data: two words, equal unless half-written */
/* only for the checks */
bool halted[N+1];
byte inside = 0;
byte done = 0;

#define OR_DIE \
	:: (crashes < MAXCRASH) -> goto crash \
	:: (stops < MAXSTOP) -> goto stop

#ifdef M_H_IGNORED
#define RESERVED(w) false
#else
#define RESERVED(w) ((w) & H)
#endif
#ifdef M_TRY_HONOURS_H
#define TRY_TAKES(w) (OWN(w) == 0 && !RESERVED(w))
#else
#define TRY_TAKES(w) (OWN(w) == 0)
#endif
#ifdef M_FAST_DROPS_W
#define FAST_KEEPS (~(15 | W))
#else
#ifdef M_FAST_DROPS_A
#define FAST_KEEPS (~(15 | A))
#else
#define FAST_KEEPS (~15)
#endif
#endif

#define DEAD(o) (token[SLOT(o)] == 0 || gen[SLOT(o)] != GEN(o) || !alive[token[SLOT(o)]])
#define OWNER_STOPPED (inside != 0 && halted[inside])

/* when one that does not sleep becomes overdue, and when a sleep ends by itself */
#ifdef STARVE                  /* only the last process ever becomes overdue; the others just keep coming */
#define TIME_PASSES over = (me == N)
#define SLICE sleeping[me]
#else
#define TIME_PASSES if :: over = 1 :: skip fi
#ifdef M_NO_SLICE
#define SLICE false
#else
#ifdef LIVE
#define SLICE (sleeping[me] && over && crashes + stops > 0 && !OWNER_STOPPED)
#else                          /* one that would find nothing changed sleeps on: so that a hang is a deadlock */
#define SLICE (sleeping[me] && over && crashes + stops > 0 && !OWNER_STOPPED && \
	(OWN(word) == 0 || DEAD(OWN(word)) || (word & (W | H)) != (W | H)))
#endif
#endif
#endif

/* what must hold when a process gets in: nobody alive (a stopped one is alive) is inside, and it
   is told if what it finds may be half-written */
#define ENTER \
	assert(inside == 0 || !alive[inside]); \
	assert((word & A) || d0 == d1); \
	inside = me; w = 0; n = 0; slept = 0; slice = 0

/* that somebody waits; and if that one is overdue, that too */
#ifndef M_MARK_NO_W
#define MARK n = word | W; if :: over -> n = n | H :: else fi; word = n; w = 0
#else
#define MARK n = word; if :: over -> n = n | H :: else fi; word = n; w = 0
#endif

inline wake_one() {            /* futexWake: any one of the sleepers */
	if
	:: sleeping[1] -> sleeping[1] = 0
	:: sleeping[2] -> sleeping[2] = 0
	:: sleeping[3] -> sleeping[3] = 0
	:: else
	fi
}

proctype P(byte me) {
	byte r = 0;
	byte id = 0;               /* what I write into the word: slot and generation */
	short w = 0, n = 0;
	bool slept = 0;            /* in this call, at all */
	bool slice = 0;            /* a time slice of sleeping has passed since the owner was last probed */
	bool over = 0;             /* I have waited 1 ms */
	bool writes = 0;           /* this call may write: Lock, Update; not View */
	bool had = 0;              /* W of the word that the unlock replaced */
	byte s = 0, t = 0;

#ifdef REUSE
claim:	/* a slot, as attach does */
	atomic { s = 0; t = 0; if :: s = 1 :: s = 2 fi };
	if OR_DIE
	:: atomic { token[s] == 0 -> token[s] = me; goto claimed }
	:: atomic { token[s] != 0 && !alive[token[s]] -> t = token[s]; goto reap }
	:: atomic { token[3-s] == 0 || !alive[token[3-s]] -> goto claim }
	:: stops > 0 && token[s] != 0 && token[3-s] != 0 -> goto fin        /* the slots are full of stopped processes */
	fi;
reap:	/* t is dead. First the word, if its owner is that slot, and only then the slot */
#ifdef M_REAP_SLOT_FIRST
	if OR_DIE
	:: atomic { token[s] == t -> token[s] = 0 }
	:: token[s] != t
	fi;
#endif
	if OR_DIE
	:: w = word
	fi;
	if OR_DIE
#ifdef M_REAP_GEN_LATE
	:: atomic { OWN(w) != 0 && SLOT(OWN(w)) == s && GEN(OWN(w)) == gen[s] }
	:: !(OWN(w) != 0 && SLOT(OWN(w)) == s && GEN(OWN(w)) == gen[s]) -> goto reap_slot
#else
#ifdef M_REAP_SLOT_FIRST
	:: OWN(w) != 0 && SLOT(OWN(w)) == s && GEN(OWN(w)) == gen[s] && (token[s] == 0 || token[s] == t)
	:: !(OWN(w) != 0 && SLOT(OWN(w)) == s && GEN(OWN(w)) == gen[s] && (token[s] == 0 || token[s] == t)) -> goto reap_slot
#else
	:: OWN(w) != 0 && SLOT(OWN(w)) == s && token[s] == t           /* still t's, read after the word: so the word is t's */
	:: !(OWN(w) != 0 && SLOT(OWN(w)) == s && token[s] == t) -> goto reap_slot
#endif
#endif
	fi;
reap_word:
	if OR_DIE
	:: atomic { word == w -> had = ((w & W) != 0); word = ((w & ~(15 | W)) | A) + VERSION }
	:: atomic { word != w -> w = 0; goto reap }
	fi;
	if OR_DIE
	:: atomic { had -> wake_one(); had = 0 }
	:: !had
	fi;
reap_slot:
	if OR_DIE
	:: atomic { w = 0; if :: token[s] == t -> token[s] = 0 :: else fi; t = 0; goto claim }
	fi;
claimed:
	if OR_DIE
	:: atomic { gen[s] = gen[s] + 1; id = s | (gen[s] << 2); s = 0 }
	fi;
#else
	id = me;
#endif

again:
	atomic {
		w = 0; n = 0; slept = 0; slice = 0; over = 0; had = 0; writes = 0;
#ifndef STARVE
		if :: r >= ROUNDS -> goto detach :: else -> r++ fi;
#endif
		if
		:: writes = 0
#ifndef PLAIN
		:: writes = 1
#endif
#ifdef TRY
		:: goto try_lock
#endif
#ifdef SNAP
		:: goto snapshot
#endif
		fi
	};
fast:
	if OR_DIE
	:: atomic { OWN(word) == 0 && !RESERVED(word) -> word = (word & FAST_KEEPS) | id; ENTER; goto write }
	:: atomic { !(OWN(word) == 0 && !RESERVED(word)) -> skip }
	fi;

slow:
	if OR_DIE
	:: atomic { OWN(word) == 0 && (!RESERVED(word) || over) ->
#ifndef M_TAKER_DROPS_W
		if :: slept -> word = word | W :: else fi;
#else
		word = word & ~W;
#endif
#ifdef M_TAKER_KEEPS_H
		word = word | id;
#else
		word = (word & ~H) | id;
#endif
		ENTER; goto write }
	:: atomic { OWN(word) != 0 && slice -> w = word; slice = 0; goto probe }
	:: atomic { !(OWN(word) == 0 && (!RESERVED(word) || over)) && !(OWN(word) != 0 && slice) -> MARK; goto sleep }
	:: atomic { cancels < MAXCANCEL -> cancels++; goto give_up }
	fi;
probe:	/* is the owner's process alive? After a sleep only */
	if OR_DIE
#ifndef M_NO_PROBE
	:: DEAD(OWN(w)) -> goto take_over
#endif
	:: !DEAD(OWN(w)) -> goto mark
#ifdef M_NO_PROBE
	:: true -> goto mark
#endif
	fi;
take_over:
	if OR_DIE
	:: atomic { word == w ->
		word = (w & ~(15 | H)) | id | W;
#ifndef M_TAKE_OVER_NO_A
		word = word | A;
#endif
#ifndef M_TAKE_OVER_NO_VERSION
		word = word + VERSION;
#endif
		ENTER; goto write }
	:: atomic { word != w -> w = 0; goto slow }
	fi;
mark:	/* what I wait for is what the probe looked at */
	if OR_DIE
	:: atomic { word == w -> MARK }
	:: atomic { word != w -> w = 0; goto slow }
	fi;
sleep:	/* futexWait */
	if OR_DIE
#ifdef M_SLEEP_NO_COMPARE
	:: atomic { sleeping[me] = 1; slept = 1; n = 0 }
#else
	:: atomic { word == n -> sleeping[me] = 1; slept = 1; n = 0 }
	:: atomic { word != n -> n = 0; TIME_PASSES; goto slow }
#endif
	fi;
asleep:
	if
	:: (crashes < MAXCRASH) -> goto crash
	:: (stops < MAXSTOP) -> goto stop                /* may still be woken: that wake is lost */
	:: atomic { !sleeping[me] -> TIME_PASSES;
		if :: OWN(word) == 0 && RESERVED(word) && !over -> wake_one()   /* it was left for one who is overdue */
		:: else
		fi;
		goto slow }
	:: atomic { SLICE -> sleeping[me] = 0; slice = 1; TIME_PASSES; goto slow }
#ifndef STARVE
	:: atomic { sleeping[me] && !over -> sleeping[me] = 0; over = 1; slice = 1; goto slow }
	:: atomic { OWNER_STOPPED -> sleeping[me] = 0; goto detach }    /* is never robbed: the end of this run */
#endif
	:: atomic { cancels < MAXCANCEL -> cancels++; sleeping[me] = 0; goto give_up }
	fi;

give_up:
#ifndef M_GIVE_UP_KEEPS_H
	if OR_DIE
	:: atomic { over -> word = word & ~H }
	:: !over
	fi;
#endif
#ifndef M_GIVE_UP_NO_WAKE
	if OR_DIE
	:: atomic { slept -> wake_one() }
	:: !slept
	fi;
#endif
	goto again;

#ifdef TRY
try_lock:
	if OR_DIE
	:: atomic { TRY_TAKES(word) -> word = (word & FAST_KEEPS) | id; ENTER; writes = 1; goto write }
	:: atomic { !TRY_TAKES(word) -> goto again }
	fi;
#endif

write:
#ifdef STARVE
	if :: me == N -> progress: skip :: me != N fi;
#endif
	if OR_DIE
	:: atomic { !writes -> goto unlock }
	:: atomic { writes -> d0 = (d0 + 1) % 4 }
	fi;
	if OR_DIE
	:: d1 = d0
	fi;
unlock:
	if OR_DIE
#ifdef M_WAKE_FIRST
	:: atomic { (word & W) -> wake_one(); had = 0 }
	:: !(word & W)
	fi;
	if OR_DIE
#endif
	:: atomic {
		assert(OWN(word) == id); assert(inside == me);
		inside = 0; had = ((word & W) != 0);
#ifdef M_UNLOCK_DROPS_H
		word = word & ~(15 | W | H);
#else
		word = word & ~(15 | W);
#endif
		if
#ifdef M_UNLOCK_NO_VERSION
		:: writes -> word = word & ~A
#else
		:: writes -> word = (word & ~A) + VERSION
#endif
#ifdef M_READER_CLEARS_A
		:: !writes -> word = word & ~A
#else
		:: !writes
#endif
		fi
	   }
	fi;
#if !defined(M_NO_WAKE) && !defined(M_WAKE_FIRST)
wake:
	if OR_DIE
	:: atomic { had -> wake_one() }
	:: !had
	fi;
#endif
	goto again;

#ifdef SNAP
snapshot:
	if OR_DIE
#ifdef M_SNAP_IGNORES_A
	:: atomic { OWN(word) == 0 -> w = word }
	:: atomic { OWN(word) != 0 -> goto again }
#else
	:: atomic { OWN(word) == 0 && !(word & A) -> w = word }
	:: atomic { OWN(word) != 0 || (word & A) -> goto again }         /* takes the lock, in the end */
#endif
	fi;
	s = d0;
	t = d1;
	/* consistent if nobody is inside and the version is the same */
	atomic {
		if
#ifdef M_SNAP_IGNORES_A
		:: OWN(word) == 0 && VER(word) == VER(w) -> assert(s == t)
#else
#ifdef M_SNAP_IGNORES_OWNER
		:: !(word & A) && VER(word) == VER(w) -> assert(s == t)
#else
		:: OWN(word) == 0 && !(word & A) && VER(word) == VER(w) -> assert(s == t)
#endif
#endif
		:: else
		fi;
		s = 0; t = 0; goto again
	};
#endif

detach:
#ifdef REUSE
	if OR_DIE
	:: atomic { token[SLOT(id)] = 0; goto fin }
	fi;
#else
	goto fin;
#endif
stop:
	atomic { stops++; halted[me] = 1 };
	goto over_and_out;
crash:
	atomic { crashes++; alive[me] = 0; sleeping[me] = 0 };
fin:
	atomic {
		done++;
		/* when all have gone and none by force, the word is free for whoever comes, at once */
		assert(!(done == N && crashes + stops == 0 && (OWN(word) != 0 || (word & H))))
		/* TryLock on a word that is free and for which nobody waits must do */
		assert(!(done == N && OWN(word) == 0 && !TRY_TAKES(word)))
	};
over_and_out:
	atomic { r = 0; id = 0; w = 0; n = 0; slept = 0; slice = 0; over = 0; writes = 0; had = 0; s = 0; t = 0 }
}
init {
	byte k = 1;
	atomic {
		do
		:: k > N -> break
		:: else -> alive[k] = 1;
#ifndef REUSE
			token[k] = k;
#endif
			run P(k); k++
		od
	}
}
