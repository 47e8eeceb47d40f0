/* Presence: a process with attachments holds an exclusive flock on a file of its own, whose name is
 * a random token. Others tell by it whether the process is alive. See README.md.
 *
 * P shows itself (and then its token stands in a slot), may die, or leaves. Others probe the token and
 * sweep: whoever finds the file of a dead process unlinks it.
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef PROBERS
#define PROBERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2           /* tokens that P tries, probes of each prober */
#endif
#define T (ROUNDS+1)

byte ex[T];                /* the exclusive lock of the token's file is held by P */
byte sh[T];                /* how many hold a shared one */
bool linked[T];            /* the file is there */
byte now = 0;              /* the newest token */
bool dead = 0;             /* P has died, or has left */
byte in_slot = 0;          /* the token that others see in a slot; 0 = none. Of a dead P it stays */
byte crashes = 0;

#define OR_DIE :: (crashes < 1) -> goto crash

proctype P() {
create:	/* O_EXCL */
	if OR_DIE
	:: atomic { now < ROUNDS -> now++; linked[now] = 1 }
	:: now >= ROUNDS -> goto fin
	fi;
hold:	/* not blocking: somebody who sweeps may be looking at the file right now; then another token */
	if OR_DIE
	:: atomic { sh[now] == 0 -> ex[now] = 1 }
	:: atomic { sh[now] > 0 -> goto create }
	fi;
still_linked:
	if OR_DIE
#ifdef M_NO_STILL_LINKED
	:: true
#else
	:: linked[now]
	:: atomic { !linked[now] -> ex[now] = 0; goto create }
#endif
	fi;
attach:
	if OR_DIE
	:: in_slot = now
	fi;
#ifdef M_LEAVE_FIRST
	if OR_DIE
	:: atomic { linked[now] = 0; ex[now] = 0 }
	fi;
	if OR_DIE
	:: in_slot = 0
	fi;
	goto fin;
#endif
detach:
	if OR_DIE
	:: in_slot = 0
	fi;
leave:
	if OR_DIE
	:: linked[now] = 0
	fi;
	if OR_DIE
	:: ex[now] = 0
	fi;
	goto fin;
crash:
	atomic { crashes = 1; dead = 1; ex[0] = 0; ex[1] = 0; ex[2] = 0 };
fin:
	skip
}

proctype Prober() {
	byte r = 0, t = 0;
	bool was_dead = 0;         /* when the probe began */
	bool slot = 0;             /* the token comes from a slot; else from the directory: a sweep */
again:
	atomic {
		t = 0; was_dead = 0; slot = 0;
		if :: r >= ROUNDS -> goto fin :: else -> r++ fi;
	};
	if
	:: atomic { in_slot != 0 -> t = in_slot; slot = 1; was_dead = dead }
	:: atomic { linked[1] -> t = 1; was_dead = dead }
	:: atomic { linked[2] -> t = 2; was_dead = dead }
	:: !linked[1] && !linked[2] && in_slot == 0 -> goto again
	fi;
probe:
	if
	:: atomic { !linked[t] -> assert(!(slot && in_slot == t && !dead)); goto again }     /* no such file: dead */
#ifdef M_PROBE_EXCLUSIVE
	:: atomic { linked[t] && !ex[t] && sh[t] == 0 -> sh[t]++ }
	:: atomic { linked[t] && (ex[t] || sh[t] > 0) -> assert(!was_dead); goto again }
#else
	:: atomic { linked[t] && !ex[t] -> sh[t]++ }
	:: atomic { linked[t] && ex[t] -> assert(!was_dead); goto again }                    /* alive */
#endif
	fi;
verdict:
	/* dead: then nobody alive may stand in a slot under this token */
	atomic { assert(!(in_slot == t && !dead)) };
tidy:
	linked[t] = 0;
	sh[t]--;
	goto again;
fin:
	skip
}

init { byte k = 0; atomic { run P(); do :: k >= PROBERS -> break :: else -> run Prober(); k++ od } }
