/* The operations, written once for all peers in C and C++. A peer defines, before including this:
 *
 *   struct seg                                one attachment, with a member `data`
 *   seg_open(s, key, size, create)            creates or attaches; calls fail() if it cannot
 *   seg_close(s)                              detaches; the creator's call also destroys
 *   seg_lock(s), seg_unlock(s)                if HAS_LOCK
 *   seg_publish(s, side, word, v)             if HAS_NOTIFY: stores v and wakes the other side
 *   seg_await(s, side, word, v)               if HAS_NOTIFY: returns once the word is at least v
 *   peer_info()                               prints the variants
 *
 * `side` is 0 for the direction from the first process to the second, 1 for the other direction.
 */
#ifndef PEER_OPS_H
#define PEER_OPS_H

#include "peer.h"

/* At the start of the data, while two processes exchange changes or payloads. */
struct channel {
	uint32_t word[2][32]; /* each side's counter, on cache lines of its own */
	int64_t stamp[2][16];
};
#define CHANNEL_SIZE 4096

#ifdef HAS_LOCK
static void op_lock_unlock(void *p) {
	struct seg *s = (struct seg *)p;
	seg_lock(s);
	seg_unlock(s);
}

static void do_lock(void) {
	static struct seg s;
	seg_open(&s, arg("key", ""), 4096, 1);
	if (wait_for_go() >= 0) bench(number("ms", 100), op_lock_unlock, &s);
	wait_for_end();
	seg_close(&s);
}

/* What the lock guards: eight counters in one cache line. */
ALWAYS_INLINE void section(volatile uint64_t *d) {
	for (int i = 0; i < 8; i++) d[i] = d[i] + 1;
}

/* Only each 16th turn is timed, because reading the clock takes as long as a lock. The longest wait is that of all
 * turns: it shows between two readings of the clock. */
#define TURNS_PER_TIMING 16

static void do_contend(void) {
	static struct seg s;
	static struct hist h;
	seg_open(&s, arg("key", ""), 4096, number("create", 0));
	int64_t begin = wait_for_go(), end = begin + number("ms", 1000) * 1000000, n = 0, longest = 0, t0, t1 = now();
	if (begin >= 0) {
		volatile uint64_t *d = (volatile uint64_t *)s.data;
		do {
			for (int i = 1; i < TURNS_PER_TIMING; i++) {
				seg_lock(&s);
				section(d);
				seg_unlock(&s);
			}
			t0 = now();
			if (t0 - t1 > longest) longest = t0 - t1;
			seg_lock(&s);
			t1 = now();
			section(d);
			seg_unlock(&s);
			hist_add(&h, t1 - t0);
			n += TURNS_PER_TIMING;
		} while (t1 < end);
		seg_lock(&s);
		uint64_t total = d[7];
		seg_unlock(&s);
		if (longest > h.max) h.max = longest;
		printf("{\"n\":%lld,\"ns\":%lld,\"total\":%llu,", (long long)n, (long long)(t1 - begin), (unsigned long long)total);
		hist_print(&h);
		printf("}\n");
	}
	wait_for_end();
	seg_close(&s);
}

/* Waits for the lock, and holds it until the end. */
static void do_queue(void) {
	static struct seg s;
	seg_open(&s, arg("key", ""), 4096, number("create", 0));
	if (wait_for_go() >= 0) {
		seg_lock(&s);
		printf("{\"n\":1}\n");
		wait_for_end();
		seg_unlock(&s);
	}
	seg_close(&s);
}

struct copy {
	struct seg *s;
	char *buf;
	size_t size;
};

static void op_update(void *p) {
	struct copy *c = (struct copy *)p;
	seg_lock(c->s);
	memcpy(c->s->data, c->buf, c->size);
	seg_unlock(c->s);
}

/* A peer has no other consistent copy than one with the lock held. */
static void op_snapshot(void *p) {
	struct copy *c = (struct copy *)p;
	seg_lock(c->s);
	memcpy(c->buf, c->s->data, c->size);
	seg_unlock(c->s);
}

static void do_copy(void (*op)(void *)) {
	static struct seg s;
	size_t size = number("size", 64);
	struct copy c = {&s, (char *)malloc(size), size};
	memset(c.buf, 1, size);
	seg_open(&s, arg("key", ""), size, number("create", 0));
	if (wait_for_go() >= 0) bench(number("ms", 100), op, &c);
	wait_for_end();
	seg_close(&s);
}
#endif

/* Keeps n segments (key-0, key-1, ...), or one attachment, until the end of its input. */
static void do_hold(void) {
	long n = number("n", 0), count = n ? n : 1;
	struct seg *all = (struct seg *)calloc(count, sizeof *all);
	char key[512];
	for (long i = 0; i < count; i++) {
		if (n) snprintf(key, sizeof key, "%s-%ld", arg("key", ""), i);
		else snprintf(key, sizeof key, "%s", arg("key", ""));
		seg_open(&all[i], key, number("size", 4096), number("create", 1));
	}
	if (wait_for_go() >= 0) printf("{\"n\":%ld}\n", count);
	wait_for_end();
	for (long i = 0; i < count; i++) seg_close(&all[i]);
	free(all);
}

static void op_attach_detach(void *p) {
	struct seg s = {};
	seg_open(&s, (const char *)p, 4096, 0);
	seg_close(&s);
}

static void op_create_destroy(void *p) {
	struct seg s = {};
	seg_open(&s, (const char *)p, 4096, 1);
	seg_close(&s);
}

static void do_attach(void) {
	static struct seg s;
	char key[512];
	snprintf(key, sizeof key, "%s", arg("key", ""));
	int have = number("have", 0);
	if (have) seg_open(&s, key, 4096, 0);
	if (wait_for_go() >= 0) bench(number("ms", 100), op_attach_detach, key);
	wait_for_end();
	if (have) seg_close(&s);
}

static void do_create(void) {
	char key[512];
	snprintf(key, sizeof key, "%s", arg("key", ""));
	if (wait_for_go() >= 0) bench(number("ms", 100), op_create_destroy, key);
	wait_for_end();
}

#ifdef HAS_NOTIFY
/* Ping-pong: each turn is one change, timed from just before it is made until the other process has read it. */
static void do_ping(void) {
	static struct seg s;
	static struct hist h;
	int first = number("create", 0);
	long n = number("n", 1000), gap = number("gap_us", 0);
	seg_open(&s, arg("key", ""), CHANNEL_SIZE, first);
	struct channel *c = (struct channel *)s.data;
	if (wait_for_go() >= 0) {
		for (long i = 1; i <= n; i++) {
			for (int side = 0; side < 2; side++) {
				if (side == !first) {
					if (gap) usleep((useconds_t)(gap / 2 + random() % gap));
					__atomic_store_n(&c->stamp[side][0], now(), __ATOMIC_RELAXED);
					seg_publish(&s, side, &c->word[side][0], (uint32_t)i);
				} else {
					seg_await(&s, side, &c->word[side][0], (uint32_t)i);
					hist_add(&h, now() - __atomic_load_n(&c->stamp[side][0], __ATOMIC_RELAXED));
				}
			}
		}
		printf("{\"n\":%ld,", n);
		hist_print(&h);
		printf("}\n");
	}
	wait_for_end();
	seg_close(&s);
}

/* Moves n payloads of a size, through slots in the segment: the sender copies each in, the receiver is told and
 * reads it in place (first and last word), or copies it out as well if copy=1. The first `warm` are not timed. */
static void do_move(void) {
	static struct seg s;
	size_t size = number("size", 64);
	long n = number("n", 100), slots = number("slots", 2), warm = number("warm", 2);
	int send = number("create", 0), copy = number("copy", 0);
	seg_open(&s, arg("key", ""), CHANNEL_SIZE + size * slots, send);
	struct channel *c = (struct channel *)s.data;
	char *base = (char *)s.data + CHANNEL_SIZE, *buf = (char *)aligned_alloc(4096, (size + 4095) / 4096 * 4096);
	memset(buf, 1, size);
	if (wait_for_go() >= 0) {
		int64_t begin = now(), bad = 0;
		struct pace pace = {(double *)calloc(n + 1, sizeof(double)), 0, slots < n ? slots : n, 0, begin};
		for (long i = 1; i <= n + warm; i++) {
			char *slot = base + size * (i % slots);
			if (i == warm + 1) begin = pace.since = now();
			if (send) {
				if (i > slots) seg_await(&s, 1, &c->word[1][0], (uint32_t)(i - slots));
				*(int64_t *)buf = *(int64_t *)(buf + size - 8) = i;
				memcpy(slot, buf, size);
				seg_publish(&s, 0, &c->word[0][0], (uint32_t)i);
			} else {
				seg_await(&s, 0, &c->word[0][0], (uint32_t)i);
				if (copy) memcpy(buf, slot, size);
				volatile int64_t *got = (volatile int64_t *)(copy ? buf : slot);
				bad += got[0] != i || got[size / 8 - 1] != i;
				seg_publish(&s, 1, &c->word[1][0], (uint32_t)i);
				if (i > warm) pace_step(&pace);
			}
		}
		if (bad) fail("move", "a payload arrived damaged");
		printf("{\"n\":%ld,\"begin\":%lld,\"end\":%lld,\"op_ns\":%.3f}\n", n, (long long)begin, (long long)now(),
		       pace_median(&pace));
	}
	wait_for_end();
	seg_close(&s);
}
#endif

static void peer_info(void);

static int peer_main(int argc, char **argv) {
	arg_count = argc;
	arg_values = argv;
	const char *op = argc > 2 ? argv[2] : "info";
	if (!strcmp(op, "info")) peer_info();
#ifdef HAS_LOCK
	else if (!strcmp(op, "lock")) do_lock();
	else if (!strcmp(op, "contend")) do_contend();
	else if (!strcmp(op, "queue")) do_queue();
	else if (!strcmp(op, "update")) do_copy(op_update);
	else if (!strcmp(op, "snapshot")) do_copy(op_snapshot);
#endif
	else if (!strcmp(op, "hold")) do_hold();
	else if (!strcmp(op, "attach")) do_attach();
	else if (!strcmp(op, "create")) do_create();
#ifdef HAS_NOTIFY
	else if (!strcmp(op, "ping") || !strcmp(op, "poll")) do_ping();
	else if (!strcmp(op, "move")) do_move();
#endif
	else fail(op, "no such operation");
	return 0;
}

#endif
