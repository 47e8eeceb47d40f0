/* The bare system calls of attaching and creating: one file, an flock while it is created, opened or removed, and a
 * record lock far beyond its end for each slot, as in qshm. This program opens the file once, qshm opens it twice. */
#include <sys/file.h>
#include <sys/resource.h>

#include "shmfile.h"

#define SLOTS ((off_t)1 << 40)

struct seg {
	char *data;
	char path[560];
	int fd;
	size_t mapped;
	off_t slot;
};

static void must(int result, const char *what) {
	if (result < 0) fail(what, strerror(errno));
}

static short record_lock(int fd, int cmd, short type, off_t start, off_t length) {
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = SLOTS + start, .l_len = length};
	must(fcntl(fd, cmd, &l), "fcntl");
	return l.l_type;
}

static int anybody_else(int fd) { return record_lock(fd, F_OFD_GETLK, F_RDLCK, 0, 1 << 20) != F_UNLCK; }

static struct stat lock_file(int fd) {
	struct stat st;
	must(flock(fd, LOCK_EX | LOCK_NB), "flock");
	must(fstat(fd, &st), "fstat");
	if (!st.st_nlink) fail("open", "removed");
	return st;
}

static void seg_open(struct seg *s, const char *key, size_t size, int create) {
	snprintf(s->path, sizeof s->path, "/dev/shm/%s", key);
	s->fd = open(s->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT | O_EXCL : 0), 0600);
	must(s->fd, "open");
	s->mapped = (size_t)lock_file(s->fd).st_size;
	if (create) {
		s->mapped = size + 4096;
		must(fallocate(s->fd, 0, 0, (off_t)s->mapped), "fallocate");
	}
	s->data = (char *)mmap(NULL, s->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (s->data == MAP_FAILED) fail("mmap", strerror(errno));
	if (create) memset(s->data, 1, 600); /* the header */
	else if (s->data[0] != 1 || !anybody_else(s->fd)) fail("attach", "nobody is attached");
	static int attached;
	/* Only one slot for the process itself, because there is no table of slots: it keeps at most its first. */
	s->slot = create ? 0 : getpid() % 4096 * 256 + (attached++ ? 2 + attached % 254 : 1);
	record_lock(s->fd, F_OFD_SETLK, F_WRLCK, s->slot, 1);
	must(flock(s->fd, LOCK_UN), "unlock");
}

static void seg_close(struct seg *s) {
	record_lock(s->fd, F_OFD_SETLK, F_UNLCK, s->slot, 1);
	if (!anybody_else(s->fd)) {
		lock_file(s->fd);
		if (!anybody_else(s->fd)) must(unlink(s->path), "unlink");
		must(flock(s->fd, LOCK_UN), "unlock");
	}
	munmap(s->data, s->mapped);
	close(s->fd);
}

#include "peer_ops.h"

static void peer_info(void) {
	printf("{\"variant\":\"files\",\"name\":\"the same file and locks (C)\",\"version\":\"\",\"ops\":"
	       "[\"hold\",\"attach\",\"create\"]}\n");
}

int main(int argc, char **argv) {
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max; /* as Go does */
	setrlimit(RLIMIT_NOFILE, &files);
	return peer_main(argc, argv);
}
