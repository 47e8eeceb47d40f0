/* The floor of create and destroy: the files and kernel locks that qshm has for a segment whose creator can be told
 * to have died, by system calls alone. A presence, and the segment itself, each made and locked; with the last detach
 * the segment's lock is taken once more. What C keeps open and maps once, qshm opens and maps twice. */
#include <sys/file.h>

#include "shmfile.h"

struct seg {
	char *data;
	char path[560], live[560];
	int fd, presence;
	size_t mapped;
};

static void must(int result, const char *what) {
	if (result < 0) fail(what, strerror(errno));
}

static int make(char *path, const char *key, const char *suffix) {
	struct stat st;
	snprintf(path, 560, "/dev/shm/%s%s", key, suffix);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(fd, "open");
	must(flock(fd, LOCK_EX | LOCK_NB), "flock");
	must(fstat(fd, &st), "fstat");
	return fd;
}

static void seg_open(struct seg *s, const char *key, size_t size, int create) {
	if (!create) fail("attach", "this is about creating");
	s->fd = make(s->path, key, "");
	s->presence = make(s->live, key, ".live");
	s->mapped = size + 4096;
	must(fallocate(s->fd, 0, 0, (off_t)s->mapped), "fallocate");
	s->data = (char *)mmap(NULL, s->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (s->data == MAP_FAILED) fail("mmap", strerror(errno));
	memset(s->data, 1, 600); /* the header */
	must(flock(s->fd, LOCK_UN), "unlock");
}

static void seg_close(struct seg *s) {
	struct stat st;
	must(flock(s->fd, LOCK_EX | LOCK_NB), "flock");
	must(fstat(s->fd, &st), "fstat");
	munmap(s->data, s->mapped);
	must(unlink(s->path), "unlink");
	close(s->fd);
	must(unlink(s->live), "unlink");
	close(s->presence);
}

#include "peer_ops.h"

static void peer_info(void) {
	printf("{\"variant\":\"files\",\"name\":\"the same files and locks (C)\",\"version\":\"\",\"ops\":[\"create\"]}\n");
}

int main(int argc, char **argv) { return peer_main(argc, argv); }
