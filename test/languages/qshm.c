//go:build ignore

// Uses memory that processes share by qshm, without qshm: it does as
// shm/FORMAT.md says, in C11 for Linux, with no library but libc.
//
//	cc -std=c11 -O2 -o qshm qshm.c
//
// It takes a slot and a presence as others do, and gives them back. It attaches,
// it does not create.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <dirent.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: qshm COMMAND\n"
	"  list                     a line for each segment: name, status, size, version, number\n"
	"                           of living attachments, process that holds the lock, processes\n"
	"                           that are attached (r: read-only), key; with tabs between\n"
	"  read KEY                 write the data as they stand, which may be half-written\n"
	"  snapshot KEY [TIMES]     write the data as they were at one moment; the version to\n"
	"                           standard error\n"
	"  wait KEY VERSION [LONGEST]\n"
	"                           wait until the version is another, and write it; LONGEST:\n"
	"                           seconds to sleep without a look\n"
	"  lock KEY [SECONDS]       hold the lock for so long, or until the end of standard input\n"
	"  update KEY [TIMES]       add one to each 64-bit number of the data, inside the lock\n"
	"read, snapshot and wait attach read-only. The status is 3 if there is no segment, and 4\n"
	"if the last writer died inside the lock.\n";

enum { exit_none = 3, exit_abandoned = 4 };

static _Noreturn void fail(int status, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(status);
}

// The layout.

typedef struct {
	unsigned char magic[8];
	uint32_t order, format, data_off, slots;
	uint64_t id, size;
	int64_t created;
	uint32_t pid, uid, key_len, zero;
	unsigned char hash[32], zeros[32];
	_Atomic uint32_t state, refs;
	char pad1[56];
	_Atomic uint64_t word;
	char pad2[56];
	_Atomic uint32_t bell;
	char pad3[60];
	unsigned char key[256];
} header;

typedef struct {
	_Atomic uint64_t token, meta;
} slot;

_Static_assert(offsetof(header, hash) == 64, "layout");
_Static_assert(offsetof(header, state) == 128, "layout");
_Static_assert(offsetof(header, word) == 192, "layout");
_Static_assert(offsetof(header, bell) == 256, "layout");
_Static_assert(sizeof(header) == 576 && sizeof(slot) == 16, "layout");

enum { making, live, dead, removed };
enum { min_header = 4096, max_header = 2 << 20 };

static const unsigned char magic[8] = {0, 'q', 's', 'h', 'm', '\r', '\n', 0x1a};

#define OWNER ((UINT64_C(1) << 29) - 1)
#define ABANDONED (UINT64_C(1) << 29)
#define OVERDUE (UINT64_C(1) << 30)
#define WAITERS (UINT64_C(1) << 31)
#define VERSION (UINT64_C(1) << 32)
#define ARMED 1u

static uint64_t owner(uint64_t w) { return w & OWNER; }
static uint32_t version(uint64_t w) { return (uint32_t)(w >> 32); }
static uint32_t generation(uint64_t meta) { return meta >> 32 & 0x1fff; }
static uint64_t owner_bits(uint32_t i, uint32_t gen) { return (uint64_t)(i + 1) | (uint64_t)gen << 16; }

// The name of a key.

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256(const unsigned char *text, size_t len, unsigned char sum[32])
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	};
	uint32_t h[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};
	size_t blocks = (len + 9 + 63) / 64;
	for (size_t b = 0; b < blocks; b++) {
		unsigned char block[64] = {0};
		size_t from = b * 64;
		if (from < len)
			memcpy(block, text + from, len - from < 64 ? len - from : 64);
		if (from <= len && len < from + 64)
			block[len - from] = 0x80;
		if (b == blocks - 1)
			for (int i = 0; i < 8; i++)
				block[63 - i] = (unsigned char)((uint64_t)len * 8 >> 8 * i);
		uint32_t w[64], v[8];
		for (int i = 0; i < 16; i++)
			w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
		for (int i = 16; i < 64; i++)
			w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
			       (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
		memcpy(v, h, sizeof v);
		for (int i = 0; i < 64; i++) {
			uint32_t t = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
			uint32_t u = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
			memmove(v + 1, v, 7 * sizeof *v);
			v[4] += t;
			v[0] = t + u;
		}
		for (int i = 0; i < 8; i++)
			h[i] += v[i];
	}
	for (int i = 0; i < 32; i++)
		sum[i] = (unsigned char)(h[i / 4] >> (24 - i % 4 * 8));
}

static void name_of(const char *key, const unsigned char hash[32], char name[64])
{
	int n = 0;
	bool gap = false;
	for (; *key && n < 24; key++) {
		char c = *key;
		if (c >= 'A' && c <= 'Z')
			c += 'a' - 'A';
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))) {
			gap = n > 0;
			continue;
		}
		if (gap && n < 23)
			name[n++] = '_';
		gap = false;
		name[n++] = c;
	}
	if (n > 0)
		name[n++] = '-';
	for (int i = 0; i < 160; i += 5) {
		unsigned two = (unsigned)hash[i / 8] << 8 | (i / 8 + 1 < 20 ? hash[i / 8 + 1] : 0);
		name[n++] = "0123456789abcdefghijklmnopqrstuv"[two >> (11 - i % 8) & 31];
	}
	name[n] = 0;
}

static bool is_name(const char *name)
{
	size_t n = strlen(name);
	if (n < 32 || n > 57 || strspn(name + n - 32, "0123456789abcdefghijklmnopqrstuv") != 32)
		return false;
	size_t p = strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz_");
	return n == 32 || (n > 33 && p == n - 33 && name[p] == '-' && name[0] != '_');
}

// The store.

static char dir[PATH_MAX];

static void find_store(void)
{
	// It is not made: who only attaches finds nothing in a new one.
	struct stat st;
	const char *own = getenv("QSHM_DIR"), *temp = getenv("TMPDIR");
	bool private = !own || !*own;
	if (private)
		snprintf(dir, sizeof dir, "/dev/shm/qshm-%u", (unsigned)geteuid());
	else
		snprintf(dir, sizeof dir, "%s", own);
	if (private && lstat(dir, &st) != 0)
		snprintf(dir, sizeof dir, "%s/qshm-%u", temp && *temp ? temp : "/tmp", (unsigned)geteuid());
	if (lstat(dir, &st) != 0)
		fail(exit_none, "there is no store");
	if (!S_ISDIR(st.st_mode))
		fail(1, "%s is not a directory", dir);
	if (private && (st.st_uid != geteuid() || st.st_mode & 077))
		fail(1, "%s is somebody else's, or open to others", dir);
}

static void presence_path(uint64_t token, char path[PATH_MAX + 32])
{
	snprintf(path, PATH_MAX + 32, "%s/.live.%016" PRIx64, dir, token);
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void nap(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
	nanosleep(&t, NULL);
}

enum { as_it_is = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC }; // follow no link, wait for no pipe

// Asks by a shared lock whether the process of a token is dead. If its file is
// there, *fd has it, with the lock.
static bool probe(uint64_t token, int *fd)
{
	char path[PATH_MAX + 32];
	presence_path(token, path);
	*fd = open(path, O_RDONLY | as_it_is);
	if (*fd < 0)
		return errno == ENOENT;
	if (flock(*fd, LOCK_SH | LOCK_NB) == 0)
		return true;
	close(*fd);
	*fd = -1;
	return false;
}

static bool alive(uint64_t token)
{
	int fd;
	bool gone = probe(token, &fd);
	if (fd >= 0)
		close(fd);
	return !gone;
}

static void bury(uint64_t token)
{
	int fd;
	char path[PATH_MAX + 32];
	struct stat st;
	if (probe(token, &fd) && fd >= 0) {
		presence_path(token, path);
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
			unlink(path); // with the lock: nobody who has just made it may get that
		close(fd);
	}
}

static uint64_t token; // of this process
static int presence;   // its file

static void announce(void)
{
	char path[PATH_MAX + 32];
	struct stat st;
	for (;;) {
		if (getrandom(&token, sizeof token, 0) != sizeof token || token == 0)
			continue;
		presence_path(token, path);
		presence = open(path, O_RDWR | O_CREAT | O_EXCL | as_it_is, 0644);
		if (presence < 0 && errno == EEXIST)
			continue;
		if (presence < 0)
			fail(1, "%s: %s", path, strerror(errno));
		// Somebody may take it for the file of a dead process until it is locked.
		if (flock(presence, LOCK_EX | LOCK_NB) == 0 && fstat(presence, &st) == 0 && st.st_nlink > 0) {
			if ((st.st_mode & 0444) != 0444)
				fchmod(presence, 0644); // others must be able to ask
			return;
		}
		close(presence);
	}
}

static void withdraw(void)
{
	char path[PATH_MAX + 32];
	presence_path(token, path);
	unlink(path);
	close(presence);
}

// Locks the file at path, waiting at most so long for whoever is inside. -1: there
// is no file any more, or no lock.
static int enter_door(const char *path, uint64_t patience, struct stat *st)
{
	for (uint64_t start = now();;) {
		int fd = open(path, O_RDWR | as_it_is);
		if (fd < 0)
			return -1;
		while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
			if (now() - start > patience) {
				close(fd);
				errno = ETIMEDOUT;
				return -1;
			}
			nap(200000);
		}
		if (fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_nlink > 0)
			return fd;
		close(fd); // removed by who was inside before; or something else altogether
		if (!S_ISREG(st->st_mode)) {
			errno = EINVAL;
			return -1;
		}
	}
}

// What a header says of itself: 0 if it is right, 1 if its creator has not come to
// an end, -1 if it is none of ours.
static int check(const header *h, ssize_t got, int64_t file_size)
{
	static const char zeros[min_header];
	if (file_size != 1 && memcmp(h, zeros, (size_t)got) == 0)
		return 1;
	if (got < min_header || memcmp(h->magic, magic, sizeof magic) != 0 || h->order != 0x01020304 || h->format != 1)
		return -1;
	if (h->data_off >= min_header && h->data_off <= max_header && h->data_off <= file_size &&
	    h->data_off % (uint32_t)sysconf(_SC_PAGESIZE) == 0 && h->slots > 0 &&
	    h->slots <= (h->data_off - sizeof *h) / sizeof(slot) && h->size > 0 && h->size <= (uint64_t)file_size - h->data_off)
		return 0;
	return h->state == making ? 1 : -1;
}

// The list.

static void print_line(const char *name, const char *status, uint64_t size, uint64_t w, int count, const char *held, const char *pids, const header *h)
{
	printf("%s\t%s\t%" PRIu64 "\t%" PRIu32 "\t%d\t%s\t%s\t", name, status, size, version(w), count, held, pids);
	for (uint32_t i = 0; h && i < h->key_len && i < sizeof h->key; i++)
		if (h->key[i] >= 0x21 && h->key[i] <= 0x7e && h->key[i] != '\\')
			putchar(h->key[i]);
		else
			printf("\\x%02x", h->key[i]);
	putchar('\n');
}

static void describe(const char *name)
{
	char path[PATH_MAX + 300];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_RDONLY | as_it_is);
	if (fd < 0) {
		if (errno == EACCES || errno == EPERM)
			print_line(name, "unknown", 0, 0, 0, "-", "-", NULL);
		return;
	}
	header *h = calloc(1, max_header);
	ssize_t got = pread(fd, h, min_header, 0);
	int what = got < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ? -1 : check(h, got, st.st_size);
	if (what == 0 && pread(fd, h, h->data_off, 0) < min_header)
		what = -1;
	close(fd);
	if (what > 0) {
		print_line(name, "dead", 0, 0, 0, "-", "-", NULL);
	} else if (what == 0) {
		uint64_t w = h->word;
		slot *s = (slot *)(h + 1);
		char held[16] = "-", *pids = calloc(h->slots, 16);
		int count = 0;
		size_t end = 0;
		for (uint32_t i = 0; i < h->slots && i < (max_header - sizeof *h) / sizeof *s; i++) {
			if (s[i].token == 0 || !alive(s[i].token))
				continue;
			count++;
			end += (size_t)sprintf(pids + end, "%s%" PRIu32 "%s", end ? "," : "", (uint32_t)s[i].meta, s[i].meta >> 48 & 1 ? "r" : "");
			if (owner(w) == owner_bits(i, generation(s[i].meta)))
				sprintf(held, "%" PRIu32, (uint32_t)s[i].meta);
		}
		const char *status = count == 0 || h->state == making || h->state == dead ? "dead" : h->state == removed ? "removed" : "live";
		print_line(name, status, h->size, w, count, held, count ? pids : "-", h);
		free(pids);
	}
	free(h);
}

static int list(void)
{
	struct dirent **entries;
	int n = scandir(dir, &entries, NULL, alphasort);
	if (n < 0)
		fail(1, "%s: %s", dir, strerror(errno));
	for (int i = 0; i < n; i++)
		if (is_name(entries[i]->d_name))
			describe(entries[i]->d_name);
	return 0;
}

// Sleeping.

#ifdef SYS_futex_time64 // 32 bits, and a time of 64, is a system call of its own
static const long sys_futex = sizeof(time_t) > sizeof(long) ? SYS_futex_time64 : SYS_futex;
#else
static const long sys_futex = SYS_futex;
#endif

static bool futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
	return syscall(sys_futex, word, FUTEX_WAIT, value, &t, NULL, 0) != 0 && errno == ETIMEDOUT;
}

static void futex_wake(_Atomic uint32_t *word, int n) { syscall(sys_futex, word, FUTEX_WAKE, n, NULL, NULL, 0); }

// The segment that this process is attached to.

static char segment_path[PATH_MAX + 64];
static struct stat segment_file;
static header *head;
static slot *slots;
static uint32_t slot_count;
static unsigned char *data;
static size_t size;
static uint32_t my_slot;
static uint64_t mine; // the owner's bits of the lock word when this process has it
static bool read_only;

static _Atomic uint32_t *lock_half(void)
{
	return (_Atomic uint32_t *)&head->word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

static void ring(void)
{
	for (uint32_t b = head->bell; b & ARMED;)
		if (atomic_compare_exchange_strong(&head->bell, &b, b + 1)) {
			futex_wake(&head->bell, INT_MAX);
			return;
		}
}

static bool owner_alive(uint64_t w)
{
	uint32_t i = (uint32_t)(w & 0xffff) - 1;
	if (i >= slot_count)
		return false;
	uint64_t t = slots[i].token;
	return t != 0 && generation(slots[i].meta) == (owner(w) >> 16) && alive(t);
}

// Takes the word from an owner that has died.
static bool take_over(uint64_t w)
{
	if (owner(w) == 0 || owner_alive(w))
		return false;
	uint64_t n = ((w + VERSION) & ~(OWNER | OVERDUE)) | mine | ABANDONED | WAITERS;
	if (!atomic_compare_exchange_strong(&head->word, &w, n))
		return false;
	ring();
	return true;
}

// Takes the lock, and reports whether it was abandoned.
static bool lock(void)
{
	const uint64_t overdue_after = 1000000, slice = 25000000;
	uint64_t start = now();
	bool slept = false, woken = false, overdue = false;
	for (;;) {
		uint64_t w = head->word;
		if (owner(w) == 0 && (overdue || !(w & OVERDUE))) {
			uint64_t n = (w & ~OVERDUE) | mine | (slept ? WAITERS : 0);
			if (atomic_compare_exchange_strong(&head->word, &w, n))
				break;
			continue;
		}
		uint64_t waited = now() - start;
		overdue = waited >= overdue_after;
		uint64_t n = w | WAITERS | (overdue ? OVERDUE : 0);
		if (n != w && !atomic_compare_exchange_strong(&head->word, &w, n))
			continue;
		if (woken && owner(n) == 0 && !overdue)
			futex_wake(lock_half(), 1); // the word was left for one who is
		bool timed_out = futex_wait(lock_half(), (uint32_t)n, overdue ? slice : overdue_after - waited);
		slept = true;
		woken = !timed_out;
		overdue = now() - start >= overdue_after;
		if (timed_out && take_over(head->word))
			break;
	}
	return head->word & ABANDONED;
}

static void unlock(bool written)
{
	for (uint64_t w = head->word; owner(w) == mine;) {
		uint64_t n = w & ~(OWNER | WAITERS);
		if (written)
			n = (n & ~ABANDONED) + VERSION;
		if (!atomic_compare_exchange_strong(&head->word, &w, n))
			continue;
		if (w & WAITERS)
			futex_wake(lock_half(), 1);
		if (written)
			ring();
		return;
	}
}

// Takes the word away from an owner that has died, and leaves it free.
static void disown(uint64_t gone)
{
	for (uint64_t w = head->word; owner(w) == gone;) {
		uint64_t n = ((w + VERSION) & ~(OWNER | WAITERS)) | ABANDONED;
		if (!atomic_compare_exchange_strong(&head->word, &w, n))
			continue;
		if (w & WAITERS)
			futex_wake(lock_half(), 1);
		ring();
		return;
	}
}

static bool any_alive(void)
{
	for (uint32_t i = 0; i < slot_count; i++) {
		uint64_t t = slots[i].token;
		if (t != 0 && alive(t))
			return true;
	}
	return false;
}

// Gives back the slots of the dead; says how many.
static int reap(void)
{
	int found = 0;
	for (uint32_t i = 0; i < slot_count; i++) {
		uint64_t t = slots[i].token;
		if (t == 0 || alive(t))
			continue;
		found++;
		uint32_t gen = generation(slots[i].meta);
		if (slots[i].token != t)
			continue; // the generation may be another's
		disown(owner_bits(i, gen)); // first: a word never names a slot that is free
		bury(t);
		if (atomic_compare_exchange_strong(&slots[i].token, &t, 0))
			head->refs--;
	}
	return found;
}

// Removes the segment behind the door, which nobody alive is attached to.
static void destroy(int door)
{
	if (head->state != removed)
		head->state = dead;
	reap();
	unlink(segment_path);
	close(door);
}

static bool claim(void)
{
	head->refs++; // first: never too low
	do {
		for (uint32_t i = 0; i < slot_count; i++) {
			uint64_t none = 0;
			if (!atomic_compare_exchange_strong(&slots[i].token, &none, token))
				continue;
			uint32_t gen = (generation(slots[i].meta) + 1) & 0x1fff;
			slots[i].meta = (uint32_t)getpid() | (uint64_t)gen << 32 | (uint64_t)read_only << 48;
			my_slot = i;
			mine = owner_bits(i, gen);
			return true;
		}
	} while (reap() > 0);
	head->refs--;
	return false;
}

static void attach(const char *key)
{
	unsigned char hash[32];
	char name[64];
	_Alignas(16) char first[min_header] = {0};
	header *page = (header *)first;
	sha256((const unsigned char *)key, strlen(key), hash);
	name_of(key, hash, name);
	snprintf(segment_path, sizeof segment_path, "%s/%s", dir, name);

	int door = enter_door(segment_path, UINT64_MAX, &segment_file);
	if (door < 0)
		fail(errno == ENOENT ? exit_none : 1, "%s: %s", segment_path, strerror(errno));
	ssize_t got = pread(door, page, min_header, 0);
	switch (got < 0 ? -1 : check(page, got, segment_file.st_size)) {
	case 1:
		fail(exit_none, "%s was left by a creator that died", segment_path);
	case -1:
		fail(1, "%s was not made by qshm of this version", segment_path);
	}
	if (memcmp(page->hash, hash, sizeof hash) != 0)
		fail(1, "%s was made for another key of the same name", segment_path);
	slot_count = page->slots;
	size = page->size;
	head = mmap(NULL, page->data_off, PROT_READ | PROT_WRITE, MAP_SHARED, door, 0);
	data = mmap(NULL, size, read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, door, page->data_off);
	if (head == MAP_FAILED || data == MAP_FAILED)
		fail(1, "%s: %s", segment_path, strerror(errno));
	slots = (slot *)(head + 1);
	if (head->state != live || !any_alive()) {
		destroy(door);
		fail(exit_none, "%s: all who were attached have ended", segment_path);
	}
	announce();
	bool taken = claim();
	flock(door, LOCK_UN);
	close(door);
	if (!taken) {
		withdraw();
		fail(1, "%s: all attachments are taken", segment_path);
	}
}

// Gives the slot back, and with the last one that is alive destroys the segment.
static void detach(void)
{
	uint64_t own = token;
	unlock(!read_only);
	if (atomic_compare_exchange_strong(&slots[my_slot].token, &own, 0))
		head->refs--;
	while (head->refs == 0 || !any_alive()) {
		struct stat st;
		int door = enter_door(segment_path, 1000000000, &st);
		if (door < 0)
			break; // gone; or somebody is stopped inside, and is the last then
		if (st.st_dev != segment_file.st_dev || st.st_ino != segment_file.st_ino) {
			close(door);
			break; // removed, and followed by another
		}
		if (!any_alive()) {
			destroy(door);
			break;
		}
		close(door); // and look again: they may have gone, and not waited for our door
	}
	withdraw();
}

// The commands. Each returns the status, and the caller detaches.

static int put(const void *p, size_t n)
{
	return fwrite(p, 1, n, stdout) == n && fflush(stdout) == 0 ? 0 : 1;
}

// A consistent copy; by the lock, if it cannot be had without.
static int copy(unsigned char *to, uint32_t *at)
{
	for (int try = 0; try < 4; try++) {
		uint64_t w = head->word;
		if (w & ABANDONED)
			break;
		if (owner(w) != 0)
			continue;
		memcpy(to, data, size);
		atomic_thread_fence(memory_order_acquire); // the copy is before the second look
		uint64_t again = head->word;
		if (owner(again) == 0 && version(again) == version(w)) {
			*at = version(w);
			return 0;
		}
	}
	bool abandoned = lock();
	memcpy(to, data, size);
	*at = version(head->word);
	unlock(false);
	return abandoned ? exit_abandoned : 0;
}

static int snapshot(long times)
{
	unsigned char *to = malloc(size);
	int status = to ? 0 : 1;
	while (status == 0 && times-- > 0) {
		uint32_t at;
		if ((status = copy(to, &at)) == exit_abandoned)
			fputs("the last writer died inside the lock\n", stderr);
		else if (status == 0 && (status = put(to, size)) == 0)
			fprintf(stderr, "%" PRIu32 "\n", at);
	}
	free(to);
	return status;
}

static int wait_for(uint32_t since, double longest)
{
	for (;;) {
		uint32_t b = head->bell;
		if (!(b & ARMED)) {
			if (!atomic_compare_exchange_strong(&head->bell, &b, b | ARMED))
				continue;
			b |= ARMED;
		}
		// After arming: who moves the version from here on sees the bell armed.
		uint32_t v = version(head->word);
		if (v != since)
			return printf("%" PRIu32 "\n", v) < 0;
		futex_wait(&head->bell, b, (uint64_t)(longest * 1e9));
	}
}

static int hold(double seconds)
{
	printf(lock() ? "locked, abandoned\n" : "locked\n");
	fflush(stdout);
	if (seconds >= 0)
		nap((uint64_t)(seconds * 1e9));
	else
		while (getchar() != EOF)
			;
	unlock(true);
	return 0;
}

static int update(long times)
{
	uint64_t *numbers = (uint64_t *)data;
	while (times-- > 0) {
		if (lock())
			fputs("abandoned\n", stderr);
		for (size_t i = 0; i < size / sizeof *numbers; i++)
			numbers[i]++;
		unlock(true);
	}
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); // a write that fails ends in order
	const char *command = argc > 1 ? argv[1] : "";
	if (argc == 2 && strcmp(command, "list") == 0) {
		find_store();
		return list();
	}
	bool waits = strcmp(command, "wait") == 0;
	const char *commands[] = {"read", "snapshot", "wait", "lock", "update"};
	bool known = false;
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		known = known || strcmp(command, commands[i]) == 0;
	if (!known || argc < 3 + waits || argc > 4 + waits) {
		fputs(usage, stderr);
		return 2;
	}
	const char *more = argc > 3 + waits ? argv[3 + waits] : NULL;
	read_only = waits || *command == 'r' || *command == 's';
	find_store();
	attach(argv[2]);
	int status;
	switch (*command) {
	case 'r':
		status = put(data, size);
		break;
	case 's':
		status = snapshot(more ? atol(more) : 1);
		break;
	case 'w':
		status = wait_for((uint32_t)strtoul(argv[3], NULL, 10), more ? atof(more) : 1);
		break;
	case 'l':
		status = hold(more ? atof(more) : -1);
		break;
	default:
		status = update(more ? atol(more) : 1);
	}
	detach();
	return status;
}
