/* What all peer programs have in common: the command line, the clock, and how figures are printed.
 *
 *   peer info                      prints one JSON line per variant: its name and the operations it can do
 *   peer VARIANT OP NAME=VALUE...  does one operation
 *
 * A worker sets up, prints {"ready":true}, and waits for a line on its standard input holding the time (on
 * CLOCK_MONOTONIC, in nanoseconds) at which to begin, so that several start at once. It then works, prints one
 * line of figures, and waits for the end of its input before it tears down. So no memory is destroyed while
 * another worker uses it, and every worker cleans up when the runner dies.
 */
#ifndef PEER_H
#define PEER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static int arg_count;
static char **arg_values;

static const char *arg(const char *name, const char *otherwise) {
	size_t n = strlen(name);
	for (int i = 3; i < arg_count; i++)
		if (strncmp(arg_values[i], name, n) == 0 && arg_values[i][n] == '=') return arg_values[i] + n + 1;
	return otherwise;
}

static long number(const char *name, long otherwise) {
	const char *s = arg(name, NULL);
	return s ? atol(s) : otherwise;
}

static void fail(const char *what, const char *why) {
	printf("{\"error\":\"%s: %s\"}\n", what, why);
	fflush(stdout);
	exit(1);
}

ALWAYS_INLINE int64_t clock_ns(clockid_t c) {
	struct timespec t;
	clock_gettime(c, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

ALWAYS_INLINE int64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }
ALWAYS_INLINE int64_t cpu(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* Says that the set-up is done, and sleeps until the time that the runner names; returns that time. */
static int64_t wait_for_go(void) {
	char line[64];
	printf("{\"ready\":true}\n");
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin)) return -1;
	int64_t at = atoll(line);
	struct timespec t = {(time_t)(at / 1000000000), (long)(at % 1000000000)};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	return at > 0 ? at : now();
}

static void wait_for_end(void) {
	fflush(stdout);
	while (getchar() != EOF) {}
}

/* A histogram of nanoseconds: exact below 64, then 32 buckets for each power of two (3 % wide), as in hist.go. */
#define HIST_BUCKETS 2048
struct hist {
	int64_t n, max;
	int64_t count[HIST_BUCKETS];
};

ALWAYS_INLINE void hist_add(struct hist *h, int64_t v) {
	if (v < 0) v = 0;
	int i = (int)v;
	if (v >= 64) {
		int e = 63 - __builtin_clzll((unsigned long long)v); /* 6 and up */
		i = 64 + (e - 6) * 32 + (int)((v >> (e - 5)) & 31);
	}
	h->count[i]++;
	h->n++;
	if (v > h->max) h->max = v;
}

static void hist_print(const struct hist *h) {
	const char *sep = "";
	printf("\"max\":%lld,\"hist\":[", (long long)h->max);
	for (int i = 0; i < HIST_BUCKETS; i++)
		if (h->count[i]) {
			printf("%s[%d,%lld]", sep, i, (long long)h->count[i]);
			sep = ",";
		}
	printf("]");
}

static int by_value(const void *a, const void *b) {
	double d = *(const double *)a - *(const double *)b;
	return (d > 0) - (d < 0);
}

/* How fast payloads arrive: the median time of laps of several payloads, for one of them. */
struct pace {
	double *lap;
	long laps, length, in;
	int64_t since;
};

ALWAYS_INLINE void pace_step(struct pace *p) {
	if (++p->in < p->length) return;
	int64_t t = now();
	p->lap[p->laps++] = (double)(t - p->since) / (double)p->length;
	p->since = t;
	p->in = 0;
}

static double pace_median(struct pace *p) {
	if (p->laps == 0) return 0;
	qsort(p->lap, p->laps, sizeof p->lap[0], by_value);
	return p->lap[p->laps / 2];
}

/* Repeats op for ms milliseconds in batches of about 50 us, and prints the median of their times per operation:
 * preemption lengthens a few batches, and does not change the median. */
#define BATCHES 65536
ALWAYS_INLINE void bench(long ms, void (*op)(void *), void *ctx) {
	static double per[BATCHES];
	int batches = 0;
	int64_t n = 0, batch = 1, begin = now(), end = begin + ms * 1000000, c0 = cpu(), t = begin;
	while (t < end) {
		int64_t t0 = now();
		for (int64_t i = 0; i < batch; i++) op(ctx);
		t = now();
		n += batch;
		if (t - t0 < 50000 && batch < (1 << 20)) {
			batch *= 2;
			batches = 0; /* the batches were too short */
		}
		if (batches < BATCHES) per[batches++] = (double)(t - t0) / (double)batch;
		if (batches == 1 && t - t0 < 50000) batches = 0; /* the first batch was half as large as the next */
	}
	if (batches == 0) per[batches++] = (double)(t - begin) / (double)n;
	qsort(per, batches, sizeof per[0], by_value);
	printf("{\"n\":%lld,\"ns\":%lld,\"cpu_ns\":%lld,\"op_ns\":%.3f}\n", (long long)n, (long long)(t - begin),
	       (long long)(cpu() - c0), per[batches / 2]);
}

#endif
