/* A stream: a ring of messages, a writer, readers. See README.md.
 *
 * A message takes one place in the ring; its position is its number. The lock is taken as lock.pml
 * has shown it: one process has it, and if that dies, the next one takes it over. Sleeping is
 * taken as version.pml has shown it: who has read the version sleeps until it moves.
 * moved[p]: the version has moved since p has read it.
 *
 * Time: no sleep ends by itself, unless a reader has died. So a wake that is lost without a death
 * shows as a deadlock; and so does a dead reader that goes on to hold up the writer, because each
 * death ends no more than two sleeps of a process, and so does each cursor of a dead member that
 * another one takes.
 *
 * The writer: if it dies, another begins anew, at once.
 * Readers of every message: 1 from the beginning; 2 joins, from the oldest or the newest message, in
 * its own cursor or in that of 1 if that has died.
 * LATEST: a third reader copies the newest message and holds nobody up.
 * GROUP: the readers are N members of a group instead. JOIN: the last so many of them join at any
 * moment: when messages were sent, when the others have died, or have left. LEAVE: members that leave.
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef N
#define N 2
#endif
#ifndef M
#define M 4                    /* messages */
#endif
#ifndef MAXCRASH
#define MAXCRASH 0             /* readers that die, at any step */
#endif
#ifndef WCRASH
#define WCRASH 0               /* writers that die */
#endif
#ifndef LEAVE
#define LEAVE 0                /* members that leave before the end */
#endif
#ifndef CAP
#define CAP 3                  /* places in the ring */
#endif
#define WRITER 9               /* as owner of the lock */
#define NONE 255
#define TENTATIVE 1
#define HELD 2
#define WORD(p, mark) ((p) * 4 + (mark))
#define POS(v) ((v) / 4)

byte ring[CAP];                /* message p is p + 1; 0: being overwritten */
byte tail = 0, head = 0, floor = 0, wanted = 0;
bool closed = 0;               /* the writer has sent everything and closed */
byte owner[N+1], mode[N+1], cpos[N+1];
byte gp = 0, gc = NONE;        /* the word of the group: the next position, and who took the one before */
bool idle = 0;
byte moves = 0;
byte lock = 0;
bool moved[N+1];
/* only for the checks */
bool alive[N+1];
byte crashes = 0, wcrashes = 0;
byte freed = 0;                /* cursors of dead members that another member has freed or adopted, and of
                                  those that have left after a death */
byte holder[M], finished[M];   /* finished: or lost, while no member was alive */
byte leavers = 0;

#if N == 1
#define NOTIFY moved[0] = 1; moved[1] = 1
#elif N == 2
#define NOTIFY moved[0] = 1; moved[1] = 1; moved[2] = 1
#else
#define NOTIFY moved[0] = 1; moved[1] = 1; moved[2] = 1; moved[3] = 1
#endif
#define SLEEP_ENDS (naps < 2 * (crashes + freed))
#define MAY_DIE (crashes < MAXCRASH)
#define OR_DIE :: MAY_DIE -> goto crash
#define WRITER_MAY_DIE (wcrashes < WCRASH)
#define OR_WRITER_DIES :: WRITER_MAY_DIE -> goto writer_dies

#ifdef GROUP
#define AT (cpos[k] == 0 -> next : POS(cpos[k]))
#define HOLDS_UP(k) (owner[k] != 0 && mode[k] == 1 && !was_idle)
#define ALIVE(k) (owner[k] != 0 && alive[owner[k]])
#if N == 2
#define NONE_ALIVE (!ALIVE(1) && !ALIVE(2))
#elif N == 3
#define NONE_ALIVE (!ALIVE(1) && !ALIVE(2) && !ALIVE(3))
#endif
#else
#define AT cpos[k]
#define HOLDS_UP(k) (owner[k] != 0 && mode[k] == 1)
#endif

/* owner and position of one cursor are one step: the positions only grow */
inline slowest() {
	was_idle = idle;
	next = gp;
	atomic { f = tail; k = 1 };
	do
	:: k <= N -> atomic { if :: HOLDS_UP(k) && AT < f -> f = AT :: else fi; k++ }
	:: k > N -> break
	od;
	k = 0
}

#ifdef GROUP
/* confirm the member that has taken the message before the word (p, i); may_die, dies: the process may die */
inline confirm(p, i, may_die, dies) {
	if
	:: i == NONE
	:: i != NONE -> v = cpos[i];
		if
		:: may_die -> goto dies
		:: atomic { (v & TENTATIVE) && POS(v) < p -> if :: cpos[i] == v -> cpos[i] = WORD(POS(v), HELD) :: else fi }
		:: !((v & TENTATIVE) && POS(v) < p)
		fi;
		v = 0
	fi
}
#endif

proctype Writer() {
	byte f = 0, k = 0, next = 0, oldest = 0, naps = 0, before = 0, p = 0, i = NONE, v = 0, dead = 0;
	bool was_idle = 0, live = 0;
begin:
	if
	:: tail == M -> goto close
	:: tail < M
	fi;
find:
	atomic { lock == 0 -> lock = WRITER; f = 0; oldest = 0; moved[0] = 0 };
	if
	OR_WRITER_DIES
	:: tail + 1 - head <= CAP -> goto write
	:: atomic { tail + 1 - head > CAP -> oldest = tail + 1 - CAP }
	fi;
	if
	:: floor >= oldest && floor <= tail -> goto move
	:: !(floor >= oldest && floor <= tail)
	fi;
	slowest();
	if
	:: f >= oldest -> goto store_floor
	:: f < oldest
	fi;
#ifdef M_WANT_LATE
	slowest();
#endif
want:
	if
	:: atomic { true -> if :: wanted == 0 || wanted > oldest + 1 -> wanted = oldest + 1 :: else fi }
#ifndef GROUP                  /* or a quarter of the ring more */
	:: atomic { true -> if :: wanted == 0 || wanted > tail + 1 -> wanted = tail + 1 :: else fi }
#endif
	OR_WRITER_DIES
	fi;
#if !defined(M_NO_LOOK_AGAIN) && !defined(M_WANT_LATE)
look_again:
	slowest();
#endif
store_floor:
	floor = f;
	if
	OR_WRITER_DIES
	:: f >= oldest -> goto move
	:: atomic { f < oldest -> lock = 0 }
	fi;
	if
	:: moved[0] -> goto find
	:: atomic { SLEEP_ENDS -> naps++ }
	fi;
	/* a sleep has ended by itself: reap what the dead have left */
	atomic { lock == 0 -> lock = WRITER; k = 1; live = 0 };
	before = moves;
	do
	:: k <= N ->
		if
		OR_WRITER_DIES
		:: atomic { owner[k] != 0 && alive[owner[k]] -> live = 1 }
#ifdef GROUP
		:: atomic { owner[k] != 0 && !alive[owner[k]] -> dead = owner[k] };
			if
			:: mode[k] == 0
			:: mode[k] == 1 ->
#ifndef M_REAP_NO_CONFIRM
				atomic { p = gp; i = gc };
				confirm(p, i, WRITER_MAY_DIE, writer_dies);
#endif
				v = cpos[k]
			fi;
reap:
			if
			OR_WRITER_DIES
			:: atomic { !(v & HELD) -> if :: owner[k] == dead -> owner[k] = 0 :: else fi }
			:: (v & HELD)
			fi;
			atomic { dead = 0; p = 0; i = NONE; v = 0 }
#elif !defined(M_NO_REAP)
reap:
		:: atomic { owner[k] != 0 && !alive[owner[k]] -> owner[k] = 0 }
#else
		:: owner[k] != 0 && !alive[owner[k]]
#endif
		:: owner[k] == 0
		fi;
		k++
	:: k > N -> break
	od;
#ifdef GROUP
	if
#ifdef M_NO_MOVES
	:: !live -> idle = 1
	:: live
#else
	:: !live && moves == before -> idle = 1
	:: live || moves != before
#endif
	fi;
#endif
	atomic { k = 0; live = 0; before = 0; lock = 0; NOTIFY; goto find };

move:
#ifndef M_HEAD_LATE
	if
	OR_WRITER_DIES
#ifdef GROUP
	:: atomic { head < oldest -> assert(finished[head] || NONE_ALIVE); finished[head] = 1; head = oldest }
#else
	:: atomic { head < oldest -> head = oldest }
	:: atomic { head < floor -> head = floor }         /* a little more at once */
#endif
	fi;
#endif
write:
	if
	OR_WRITER_DIES
	:: ring[tail % CAP] = 0
	fi;
#ifdef M_TAIL_FIRST
	tail++;
	if
	OR_WRITER_DIES
	:: ring[(tail - 1) % CAP] = tail
	fi;
#else
record:
	if
	OR_WRITER_DIES
	:: ring[tail % CAP] = tail + 1
	fi;
publish:	/* [tail] */
	if
	OR_WRITER_DIES
	:: tail++
	fi;
#endif
#ifdef M_HEAD_LATE
	if :: oldest > head -> head = oldest :: else fi;
#endif
	if
	OR_WRITER_DIES
	:: atomic { lock = 0; NOTIFY; goto begin }
	fi;
writer_dies:	/* the lock is taken over, which moves the version */
	atomic { wcrashes++; lock = 0; f = 0; k = 0; next = 0; oldest = 0; before = 0; was_idle = 0; live = 0; p = 0; i = NONE; v = 0; dead = 0; NOTIFY; goto begin };
close:
	atomic { closed = 1; f = 0; k = 0; next = 0; oldest = 0; naps = 0; was_idle = 0; NOTIFY }
}

/* tell a writer that waits for position p. w: what wanted was */
inline tell(p) {
	w = wanted;
	if
	OR_DIE
	:: w == 0 || p + 1 < w
	:: w != 0 && p + 1 >= w ->
		if
		:: atomic { wanted == w -> wanted = 0; w = 0 };
			if
			OR_DIE
			:: atomic { true -> NOTIFY }
			fi
		:: wanted != w
		fi
	fi;
	w = 0
}

#ifndef GROUP
proctype Reader(byte me) {
	byte r = 0, seen = 0, told = 0, c = 0, w = 0;
	if
	:: atomic { me == 1 -> c = 1; goto poll }
	:: atomic { me != 1 && lock == 0 -> lock = me }
	fi;
	atomic { c = (!alive[1] && owner[1] != 0 -> 1 : me);
		if :: r = head :: r = tail fi;
		seen = r; told = r };
	if OR_DIE :: mode[c] = 0 fi;
claim_cursor:
	if OR_DIE :: owner[c] = me fi;
	if OR_DIE :: cpos[c] = r fi;
	if OR_DIE :: mode[c] = 1 fi;
#ifndef M_JOIN_NO_FLOOR
	if OR_DIE :: atomic { floor > r -> floor = r } :: floor <= r fi;
#endif
	if OR_DIE :: atomic { lock = 0; NOTIFY } fi;
poll:
	if
	OR_DIE
	:: r == seen -> seen = tail
	:: r != seen
	fi;
	if
	:: r != seen -> goto read
	:: r == seen && r == M -> goto free_cursor
	:: r == seen && r < M
	fi;
	moved[me] = 0;
	if
	OR_DIE
	:: tail != r -> goto poll
	:: tail == r
	fi;
	if
	OR_DIE
	:: moved[me] -> goto poll
	fi;
read:	/* in place: nothing may overwrite it until the cursor says that it was read */
	assert(ring[r % CAP] == r + 1);
	if
	OR_DIE
	:: atomic { assert(ring[r % CAP] == r + 1); r++ }
	fi;
	/* the next call: it need not say at once that the message was read */
#ifdef M_TELL_FIRST
	tell(r);
#endif
	if
	OR_DIE
	:: r != seen && wanted == 0 -> goto poll
	:: true
	fi;
advance:
#ifdef M_TELL_FIRST
	cpos[c] = r;
#else
	if OR_DIE :: cpos[c] = r fi;
	tell(r);
#endif
	goto poll;
free_cursor:
	if OR_DIE :: owner[c] = 0 fi;
	if OR_DIE :: wanted = 0 fi;
	if OR_DIE :: atomic { true -> NOTIFY; goto fin } fi;
crash:
	atomic { crashes++; alive[me] = 0; if :: lock == me -> lock = 0 :: else fi };
fin:
	atomic { r = 0; seen = 0; told = 0; c = 0; w = 0 }
}

proctype Latest() {
	byte t = 0, copied = 0, h = 0, r = 0;
again:
	atomic { t = 0; copied = 0; h = 0; if :: r == M -> goto fin :: else -> r++ fi };
	atomic { tail > 0 -> t = tail };
	copied = ring[(t - 1) % CAP];
	h = head;
	atomic { assert(t - 1 < h || copied == t); goto again };
fin:
	skip
}
#else

proctype Member(byte me) {
	byte c = me, p = 0, i = NONE, k = 0, v = 0, w = 0, dead = 0, naps = 0;
	bool holds = 0;
#ifdef JOIN
	if
	:: me <= N - JOIN -> goto next
	:: atomic { me > N - JOIN && lock == 0 -> lock = me; k = 1; c = 0 }
	fi;
	do	/* what writers have overwritten while no member was alive is lost */
	:: k > N -> break
	:: k <= N ->
		if
		OR_DIE
#ifndef M_JOIN_KEEPS_LOST
		:: atomic { mode[k] == 1 && owner[k] != 0 && !alive[owner[k]] && cpos[k] != 0 && POS(cpos[k]) < head -> owner[k] = 0 }
		:: atomic { !(mode[k] == 1 && owner[k] != 0 && !alive[owner[k]] && cpos[k] != 0 && POS(cpos[k]) < head) -> skip }
#else
		:: true
#endif
		fi;
		k++
	od;
	k = 1;
#ifndef M_JOIN_BEHIND
	if OR_DIE :: atomic { gp < head -> gp = head; gc = NONE } :: gp >= head fi;
#endif
#ifndef M_JOIN_NO_FLOOR
	if OR_DIE :: floor = 0 fi;
#endif
#ifndef M_JOIN_IDLE
	if OR_DIE :: idle = 0 fi;
#endif
	do
	:: k <= N ->
		dead = owner[k];
		if
#ifdef M_CLAIM_HELD
		:: dead != 0 && alive[dead]
		:: dead == 0 || !alive[dead] ->
#else
		:: dead != 0 && (alive[dead] || mode[k] == 1 && cpos[k] != 0)
		:: dead == 0 || !alive[dead] && !(mode[k] == 1 && cpos[k] != 0) ->
#endif
			if OR_DIE :: mode[k] = 0 fi;
claim_cursor:
			if
			OR_DIE
			:: atomic { owner[k] == dead -> owner[k] = me; c = k }
			:: owner[k] != dead
			fi;
			if
			:: c != 0 -> break
			:: c == 0
			fi
		fi;
		k++
	od;
	if OR_DIE :: atomic { cpos[c] = 0; k = 0; dead = 0 } fi;
	if OR_DIE :: mode[c] = 1 fi;
	if OR_DIE :: atomic { lock = 0; NOTIFY } fi;
#endif
next:	/* looks for dead members now and then, and after a sleep that has ended by itself */
	if
	OR_DIE
	:: crashes > 0 -> goto redeliver
	:: true
	:: atomic { leavers < LEAVE -> leavers++; goto leave }
	fi;
poll:
	atomic { p = gp; i = gc };
#ifndef M_NO_CONFIRM
	confirm(p, i, MAY_DIE, crash);
#endif
	if
	OR_DIE
	:: p == tail -> goto rest
	:: p != tail
	fi;
#ifndef M_TENTATIVE_LATE
tentative:
	if OR_DIE :: cpos[c] = WORD(p, TENTATIVE) fi;
#endif
take:
	if
	OR_DIE
	:: atomic { gp == p && gc == i -> gp = p + 1; gc = c }
	:: gp != p || gc != i -> goto slower
	fi;
held:
	if OR_DIE :: cpos[c] = WORD(p, HELD) fi;
	goto deliver;
slower:
	if OR_DIE :: cpos[c] = 0 fi;
	p = gp;
	tell(p);
	goto poll;

deliver:
	if
	OR_DIE
	:: atomic { assert(ring[p % CAP] == p + 1); assert(!finished[p]); assert(holder[p] == 0 || !alive[holder[p]]); holder[p] = me }
	fi;
finish:
	if
	OR_DIE
	:: atomic { assert(ring[p % CAP] == p + 1); assert(holder[p] == me); cpos[c] = 0; finished[p] = 1; p = 0; i = NONE }
	fi;
	p = gp;
	tell(p);
	goto next;

redeliver:
	k = 1;
	do
	:: k > N -> break
	:: k <= N ->
		dead = owner[k];
		if
		OR_DIE
		:: k == c || dead == 0 || mode[k] == 0 || alive[dead]
		:: k != c && dead != 0 && mode[k] == 1 && !alive[dead] ->
#if !defined(M_NO_CONFIRM) && !defined(M_ADOPT_NO_CONFIRM)
			atomic { p = gp; i = gc };
			confirm(p, i, MAY_DIE, crash);
#endif
			v = cpos[k];
			if
			OR_DIE
			:: atomic { !(v & HELD) -> if :: owner[k] == dead -> owner[k] = 0; freed++ :: else fi }
			:: (v & HELD) -> goto adopt
			fi
		fi;
		atomic { k++; v = 0; dead = 0; p = 0; i = NONE }
	od;
	atomic { k = 0; dead = 0 };
	goto poll;
adopt:
	if
	OR_DIE
	:: atomic { owner[k] == dead -> owner[k] = me; freed++ }
	:: atomic { owner[k] != dead -> k = 0; dead = 0; v = 0; goto poll }
	fi;
	if OR_DIE :: moves++ fi;
	if OR_DIE :: owner[c] = 0 fi;
	atomic { c = k; p = POS(v); k = 0; dead = 0; v = 0; goto deliver };

rest:	/* nothing to take: the end, or a sleep */
	moved[me] = 0;
	if
	OR_DIE
	:: gp != tail -> goto poll
	:: gp == tail
	fi;
	if
	:: !closed -> goto sleep
	:: closed && gp != tail -> goto poll
	:: closed && gp == tail
	fi;
	k = 1;
	do
	:: k > N -> break
	:: k <= N ->
		if
		:: k != c && owner[k] != 0 && cpos[k] != 0 -> holds = 1
		:: !(k != c && owner[k] != 0 && cpos[k] != 0)
		fi;
		k++
	od;
	k = 0;
	if
	:: atomic { holds -> holds = 0 }
	:: !holds -> goto eof
	fi;
sleep:
	if
	OR_DIE
	:: moved[me] -> goto next
	:: atomic { SLEEP_ENDS -> naps++; goto redeliver }
	fi;
eof:
	if OR_DIE :: atomic { true -> NOTIFY } fi;
	atomic { owner[c] = 0;
		k = 0;
		do
		:: k == M -> break
		:: k < M -> assert(finished[k]); k++    /* none is lost */
		od;
		goto fin };
leave:
	if OR_DIE :: atomic { owner[c] = 0; if :: crashes > 0 -> freed++ :: else fi } fi;
	if OR_DIE :: wanted = 0 fi;
	if OR_DIE :: atomic { true -> NOTIFY; goto fin } fi;
crash:
	atomic { crashes++; alive[me] = 0; if :: lock == me -> lock = 0 :: else fi };
fin:
	atomic { c = 0; p = 0; i = 0; k = 0; v = 0; w = 0; dead = 0; naps = 0; holds = 0 }
}
#endif

init {
	byte k = 1;
	atomic {
		do
		:: k > N -> break
		:: k <= N -> alive[k] = 1;
#ifdef GROUP
#ifdef JOIN
			if :: k <= N - JOIN -> owner[k] = k; mode[k] = 1 :: else fi;
#else
			owner[k] = k; mode[k] = 1;
#endif
			run Member(k);
#else
			if :: k == 1 -> owner[k] = k; mode[k] = 1 :: else fi;
			run Reader(k);
#endif
			k++
		od;
		run Writer();
#ifdef LATEST
		run Latest();
#endif
		skip
	}
}
