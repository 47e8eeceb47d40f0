/* A POSIX shared memory object, by shm_open and mmap, for peers that have no memory of their own. */
#ifndef SHMFILE_H
#define SHMFILE_H

#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void *shmfile_open(const char *key, size_t size, int create, size_t *mapped) {
	char name[520];
	snprintf(name, sizeof name, "/%s", key);
	int fd = shm_open(name, create ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
	if (fd < 0) fail("shm_open", strerror(errno));
	if (create) {
		if (ftruncate(fd, (off_t)size)) fail("ftruncate", strerror(errno));
	} else {
		struct stat st;
		fstat(fd, &st);
		size = (size_t)st.st_size;
	}
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) fail("mmap", strerror(errno));
	close(fd);
	*mapped = size;
	return p;
}

static void shmfile_close(void *p, size_t mapped, const char *unlink_key) {
	munmap(p, mapped);
	if (unlink_key) {
		char name[520];
		snprintf(name, sizeof name, "/%s", unlink_key);
		shm_unlink(name);
	}
}

#endif
