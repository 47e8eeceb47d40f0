/* A bare futex. Each wake is a system call, because waiters are not counted. Also the C library's memcpy within one
 * process, with which moving memory between processes is compared. */
#include <linux/futex.h>
#include <sys/syscall.h>

#include "shmfile.h"

#define HAS_NOTIFY

struct seg {
	char *data;
	size_t mapped;
	char key[512];
	int created;
};

static void seg_open(struct seg *s, const char *key, size_t size, int create) {
	s->data = (char *)shmfile_open(key, size, create, &s->mapped);
	s->created = create;
	snprintf(s->key, sizeof s->key, "%s", key);
}

static void seg_close(struct seg *s) { shmfile_close(s->data, s->mapped, s->created ? s->key : NULL); }

ALWAYS_INLINE void seg_publish(struct seg *s, int side, uint32_t *word, uint32_t v) {
	(void)s, (void)side;
	__atomic_store_n(word, v, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

ALWAYS_INLINE void seg_await(struct seg *s, int side, uint32_t *word, uint32_t v) {
	(void)s, (void)side;
	for (;;) {
		uint32_t seen = __atomic_load_n(word, __ATOMIC_SEQ_CST);
		if ((int32_t)(seen - v) >= 0) return;
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
	}
}

#include "peer_ops.h"

struct within {
	char *from, *to;
	size_t size;
	long i, slots;
};

static void op_memcpy(void *p) {
	struct within *w = (struct within *)p;
	memcpy(w->to + w->size * (w->i++ % w->slots), w->from, w->size);
	__asm__ volatile("" ::: "memory");
}

static void do_memcpy(void) {
	struct within w = {.size = number("size", 64), .slots = number("slots", 2)};
	w.from = (char *)aligned_alloc(4096, (w.size + 4095) / 4096 * 4096);
	w.to = (char *)aligned_alloc(4096, (w.size * w.slots + 4095) / 4096 * 4096);
	memset(w.from, 1, w.size);
	memset(w.to, 1, w.size * w.slots);
	if (wait_for_go() >= 0) bench(number("ms", 100), op_memcpy, &w);
	wait_for_end();
}

static void peer_info(void) {
	printf("{\"variant\":\"futex\",\"name\":\"bare futex (C)\",\"version\":\"\",\"ops\":[\"ping\",\"move\"]}\n"
	       "{\"variant\":\"memcpy\",\"name\":\"memcpy within one process (C)\",\"version\":\"\",\"ops\":[\"memcpy\"]}\n");
}

int main(int argc, char **argv) {
	arg_count = argc;
	arg_values = argv;
	if (argc > 2 && !strcmp(argv[2], "memcpy")) {
		do_memcpy();
		return 0;
	}
	return peer_main(argc, argv);
}
