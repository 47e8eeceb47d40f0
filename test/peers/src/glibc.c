/* glibc: a robust, process-shared mutex and a condition variable in a POSIX shared memory object. */
#include <gnu/libc-version.h>
#include <pthread.h>

#include "shmfile.h"

#define HAS_LOCK
#define HAS_NOTIFY

struct header {
	pthread_mutex_t mutex __attribute__((aligned(64)));
	pthread_cond_t cond[2] __attribute__((aligned(64)));
};
#define HEADER_SIZE 4096

struct seg {
	char *data;
	struct header *h;
	size_t mapped;
	char key[512];
	int created;
};

static void seg_open(struct seg *s, const char *key, size_t size, int create) {
	s->h = (struct header *)shmfile_open(key, size + HEADER_SIZE, create, &s->mapped);
	s->data = (char *)s->h + HEADER_SIZE;
	s->created = create;
	snprintf(s->key, sizeof s->key, "%s", key);
	if (!create) return;
	pthread_mutexattr_t m;
	pthread_mutexattr_init(&m);
	pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&s->h->mutex, &m);
	pthread_condattr_t c;
	pthread_condattr_init(&c);
	pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED);
	for (int i = 0; i < 2; i++) pthread_cond_init(&s->h->cond[i], &c);
}

static void seg_close(struct seg *s) { shmfile_close(s->h, s->mapped, s->created ? s->key : NULL); }

ALWAYS_INLINE void seg_lock(struct seg *s) {
	if (pthread_mutex_lock(&s->h->mutex) == EOWNERDEAD) pthread_mutex_consistent(&s->h->mutex);
}

ALWAYS_INLINE void seg_unlock(struct seg *s) { pthread_mutex_unlock(&s->h->mutex); }

static void seg_publish(struct seg *s, int side, uint32_t *word, uint32_t v) {
	seg_lock(s);
	*word = v;
	seg_unlock(s);
	pthread_cond_signal(&s->h->cond[side]);
}

static void seg_await(struct seg *s, int side, uint32_t *word, uint32_t v) {
	seg_lock(s);
	while ((int32_t)(*word - v) < 0) pthread_cond_wait(&s->h->cond[side], &s->h->mutex);
	seg_unlock(s);
}

#include "peer_ops.h"

static void peer_info(void) {
	printf("{\"variant\":\"glibc\",\"name\":\"glibc robust mutex\",\"version\":\"glibc %s\",\"ops\":"
	       "[\"lock\",\"contend\",\"queue\",\"update\",\"snapshot\",\"hold\",\"attach\",\"create\",\"ping\",\"move\"]}\n",
	       gnu_get_libc_version());
}

int main(int argc, char **argv) { return peer_main(argc, argv); }
