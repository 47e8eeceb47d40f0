//go:build ignore

// Uses memory that processes share by qshm, without qshm: this program follows
// shm/FORMAT.md and shm/stream/FORMAT.md, in C11 for Linux, with no library but libc.
//
//	cc -std=c11 -O2 -o qshm qshm.c
//
// It makes one attachment and holds its slot lock, as every other process does.
// The steps in brackets of FORMAT.md are calls of at() here: with
// QSHM_FAULT=STEP[:N] in the environment, the program dies before the Nth time of
// that step.
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
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
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: qshm COMMAND\n"
	"  list                     a line for each segment: name, status, size, version, number\n"
	"                           of live attachments, process that holds the lock, attached\n"
	"                           processes (r: read-only), key; with tabs between\n"
	"  create KEY SIZE          create the segment and keep it until the end of standard\n"
	"                           input; then write the data as they stand\n"
	"  read KEY                 write the data as they stand, which may be half-written\n"
	"  snapshot KEY [TIMES]     write the data as they were at one moment\n"
	"  wait KEY VERSION [LONGEST]\n"
	"                           wait until the version is another, and write it; LONGEST:\n"
	"                           seconds to sleep without a look\n"
	"  lock KEY                 hold the lock until the end of standard input\n"
	"  update KEY [TIMES]       add one to each 64-bit number of the data, with the lock held\n"
	"  grow KEY SIZE            make the data at least so large, and write their size\n"
	"  remove KEY               free the key; attached processes keep the memory\n"
	"  send KEY                 send each line of standard input to the stream, which exists\n"
	"read, snapshot and wait attach read-only. The status is 3 if there is no segment, and 4\n"
	"if the last writer died holding the lock.\n";

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

static const char *fault; // of the environment

// Dies here if the environment says so.
static void at(const char *step)
{
	static int times;
	size_t n = strlen(step);
	if (!fault || strncmp(fault, step, n) != 0 || (fault[n] != 0 && fault[n] != ':'))
		return;
	if (++times >= (fault[n] ? atoi(fault + n + 1) : 1))
		raise(SIGKILL);
}

// The layout.

typedef struct {
	unsigned char magic[8];
	uint32_t order, format, data_off, slots;
	uint64_t id;
	int64_t created;
	uint32_t pid, uid, kind, key_len;
	uint64_t zero;
	unsigned char hash[32], zeros[32];
	_Atomic uint32_t state, refs;
	_Atomic uint64_t size;
	char pad1[48];
	_Atomic uint64_t word;
	char pad2[56];
	_Atomic uint32_t event;
	char pad3[60];
	unsigned char key[256];
} header;

typedef _Atomic uint64_t slot;

_Static_assert(offsetof(header, hash) == 64, "layout");
_Static_assert(offsetof(header, state) == 128, "layout");
_Static_assert(offsetof(header, size) == 136, "layout");
_Static_assert(offsetof(header, word) == 192, "layout");
_Static_assert(offsetof(header, event) == 256, "layout");
_Static_assert(sizeof(header) == 576 && sizeof(slot) == 8, "layout");

enum { making, live, dead, removed };
enum { record_locks = 1 };
enum { min_header = 4096, max_header = 2 << 20, max_slots = 65535 };

static const unsigned char magic[8] = {0, 'q', 's', 'h', 'm', '\r', '\n', 0x1a};

#define OWNER UINT64_C(0xffff)
#define DETACH (UINT64_C(1) << 16) // one in the detach count
#define DETACHES (UINT64_C(0x1fff) << 16)
#define ABANDONED (UINT64_C(1) << 29)
#define STARVING (UINT64_C(1) << 30)
#define WAITERS (UINT64_C(1) << 31)
#define VERSION (UINT64_C(1) << 32)
#define ARMED 1u

#define TAKEN (UINT64_C(1) << 32)
#define READ_ONLY (UINT64_C(1) << 33)
#define SERIAL (UINT64_C(1) << 34)

static uint64_t owner(uint64_t w) { return w & OWNER; }
static uint32_t version(uint64_t w) { return (uint32_t)(w >> 32); }
static uint64_t serial(uint64_t s) { return s & ~(SERIAL - 1); }

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

static const char suffix[] = ".qshm";
static const char base32[] = "0123456789abcdefghijklmnopqrstuv";

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
		name[n++] = base32[two >> (11 - i % 8) & 31];
	}
	memcpy(name + n, suffix, sizeof suffix);
}

static bool is_name(const char *name)
{
	size_t n = strlen(name);
	if (n < 37 || n > 62 || strcmp(name + n - 5, suffix) != 0 || strspn(name + n - 37, base32) < 32)
		return false;
	size_t p = strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz_");
	return n == 37 || (n > 38 && p == n - 38 && name[p] == '-' && name[0] != '_');
}

// The store.

static char dir[PATH_MAX];

static void find_store(bool make)
{
	struct stat st;
	const char *explicit = getenv("QSHM_DIR"), *temp = getenv("TMPDIR");
	bool own = !explicit || !*explicit;
	if (own)
		snprintf(dir, sizeof dir, "/dev/shm/qshm-%u", (unsigned)geteuid());
	else
		snprintf(dir, sizeof dir, "%s", explicit);
	if (own && lstat(dir, &st) != 0 && access("/dev/shm", W_OK) != 0)
		snprintf(dir, sizeof dir, "%s/qshm-%u", temp && *temp ? temp : "/tmp", (unsigned)geteuid());
	if (make)
		mkdir(dir, 0700);
	if (lstat(dir, &st) != 0)
		fail(errno == ENOENT ? exit_none : 1, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		fail(1, "%s is not a directory", dir);
	if (own && (st.st_uid != geteuid() || st.st_mode & 077))
		fail(1, "%s belongs to another user, or is open to others", dir);
}

// Locks of the kernel.

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

enum { open_flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC }; // no link, no waiting for a pipe, no child

// Takes the file lock. Any process that may open the file can hold it for ever, so
// the wait is bounded.
static const uint64_t patience = UINT64_C(10000000000);

static bool lock_file(int fd, uint64_t longest)
{
	uint64_t start = now();
	for (unsigned pause = 50; flock(fd, LOCK_EX | LOCK_NB) != 0; pause = pause < 500 ? 2 * pause : 1000) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return false;
		if (now() - start > longest) {
			errno = ETIMEDOUT;
			return false;
		}
		usleep(pause);
	}
	return true;
}

// Applies a command to the locks of n slots. Returns the type of the lock afterwards:
// of one that is in the way, for F_OFD_GETLK; -1 if the command fails.
static int record_lock(int fd, int command, short type, uint32_t first, uint32_t n)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = ((off_t)1 << 40) + first, .l_len = n};
	return fcntl(fd, command, &l) == 0 ? l.l_type : -1;
}

// Asks whether another open file description holds the lock of one of n slots.
// A read lock: another reader's is none of an attachment. If the answer is not to
// be had, the slots count as held.
static bool held(int fd, uint32_t first, uint32_t n)
{
	return record_lock(fd, F_OFD_GETLK, F_RDLCK, first, n) != F_UNLCK;
}

enum verdict { segment, half_made, foreign };

// Reads the beginning of a file, and then its size, and tells what the file is.
static enum verdict examine(int fd, header *h, struct stat *st)
{
	static const char zeros[min_header];
	ssize_t got = pread(fd, h, min_header, 0);
	if (got < 0 || fstat(fd, st) != 0 || !S_ISREG(st->st_mode))
		return foreign;
	int64_t file_size = st->st_size;
	if (file_size == 0 ||
	    (file_size > 1 && file_size <= min_header && (got < 1 || memcmp((char *)h + 1, zeros, (size_t)got - 1) == 0)))
		return half_made;
	if (got < (ssize_t)sizeof *h || memcmp(h->magic, magic, sizeof magic) != 0 || h->order != 0x01020304 || h->format != 2)
		return foreign;
	if (h->state == making)
		return half_made;
	bool sound = h->data_off >= min_header && h->data_off <= max_header && h->data_off <= file_size &&
		     h->data_off % (uint32_t)sysconf(_SC_PAGESIZE) == 0 && h->slots > 0 && h->slots <= max_slots &&
		     h->slots <= (h->data_off - sizeof *h) / sizeof(slot) && h->size > 0 && h->size <= (uint64_t)file_size - h->data_off;
	return sound ? segment : foreign;
}

// The list.

static void print_line(const char *name, const char *status, uint64_t size, uint64_t w, int count, const char *owner, const char *pids, const header *h)
{
	printf("%s\t%s\t%" PRIu64 "\t%" PRIu32 "\t%d\t%s\t%s\t", name, status, size, version(w), count, owner, pids);
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
	int fd = open(path, O_RDONLY | open_flags);
	if (fd < 0) {
		if (errno == EACCES || errno == EPERM)
			print_line(name, "unknown", 0, 0, 0, "-", "-", NULL);
		return;
	}
	header *h = calloc(1, max_header);
	enum verdict what = examine(fd, h, &st);
	if (what == half_made) {
		print_line(name, "dead", 0, 0, 0, "-", "-", NULL);
	} else if (what == segment && h->kind == record_locks && pread(fd, h, h->data_off, 0) >= min_header) {
		uint64_t w = h->word;
		slot *s = (slot *)(h + 1);
		char holder[16] = "-", *pids = calloc(h->slots, 16);
		int count = 0;
		size_t end = 0;
		for (uint32_t i = 0; i < h->slots; i++) {
			if (!(s[i] & TAKEN) || !held(fd, i, 1))
				continue;
			count++;
			end += (size_t)sprintf(pids + end, "%s%" PRIu32 "%s", end ? "," : "", (uint32_t)s[i], s[i] & READ_ONLY ? "r" : "");
			if (owner(w) == i + 1)
				sprintf(holder, "%" PRIu32, (uint32_t)s[i]);
		}
		const char *status = count == 0 || h->state == dead ? "dead" : h->state == removed ? "removed" : "live";
		print_line(name, status, h->size, w, count, holder, count ? pids : "-", h);
		free(pids);
	}
	free(h);
	close(fd);
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

#ifdef SYS_futex_time64 // 32-bit systems with a 64-bit time have a system call of their own
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
static int file = -1; // carries the file lock and the slot lock
static header *head;
static slot *slots;
static uint32_t slot_count;
static unsigned char *data;
static size_t size; // of the data as they are mapped
static uint32_t my_slot;
static bool read_only;
static bool adopt; // an empty file that cannot be removed

static uint64_t mine(void) { return my_slot + 1; }

static _Atomic uint32_t *lock_half(void)
{
	return (_Atomic uint32_t *)&head->word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

// Wakes the waiters for the version, which has moved.
static void signal_event(void)
{
	for (uint32_t e = head->event; e & ARMED;)
		if (atomic_compare_exchange_strong(&head->event, &e, e + 1)) {
			at("signal");
			futex_wake(&head->event, INT_MAX);
			return;
		}
}

// Changes the lock word for good, before another attachment can have the slot of
// this one, or of a dead process: a take-over that found the slot free fails then.
static void count_detach(void)
{
	uint64_t w = head->word;
	while (!atomic_compare_exchange_weak(&head->word, &w, (w & ~DETACHES) | ((w + DETACH) & DETACHES)))
		;
}

// Swaps the lock word w for n without an owner, wakes a waiter, and signals if the
// version has moved.
static bool free_word(uint64_t w, uint64_t n)
{
	uint64_t read = w;
	if (!atomic_compare_exchange_strong(&head->word, &read, n & ~(OWNER | WAITERS)))
		return false;
	at("wake");
	if (w & WAITERS)
		futex_wake(lock_half(), 1);
	if (version(n) != version(w))
		signal_event();
	return true;
}

// Frees the lock word w, whose owner has died.
static bool abandon(uint64_t w) { return free_word(w, (w + VERSION) | ABANDONED); }

// Whether the process that the lock word w names has died. A process does not see
// its own slot lock. If there is no such slot, no process wrote that word.
static bool owner_died(uint64_t w)
{
	return owner(w) != 0 && owner(w) != mine() && (owner(w) > slot_count || !held(file, (uint32_t)owner(w) - 1, 1));
}

// Takes the lock word w from its owner, if that process has died. The next process
// that claims the slot clears it.
static bool take_over(uint64_t w)
{
	at("probe");
	if (!owner_died(w))
		return false;
	at("take_over");
	if (!atomic_compare_exchange_strong(&head->word, &w, ((w + VERSION) & ~(OWNER | STARVING)) | mine() | ABANDONED | WAITERS))
		return false;
	at("taken_over");
	signal_event();
	return true;
}

// Takes the lock, and reports whether it was abandoned.
static bool lock(void)
{
	const uint64_t ms = 1000000, starving_after = ms, first = 25 * ms, longest = 2000 * ms;
	uint64_t start = now(), next_probe = first;
	bool slept = false, woken = false;
	for (;;) {
		uint64_t w = head->word, waited = now() - start;
		bool starving = waited >= starving_after;
		if (owner(w) == 0 && (starving || !(w & STARVING))) {
			at("take");
			if (atomic_compare_exchange_strong(&head->word, &w, (w & ~STARVING) | mine() | (slept ? WAITERS : 0)))
				break;
			continue;
		}
		if (waited >= next_probe) {
			next_probe = waited + (waited / 4 < first ? first : waited / 4 < longest ? waited / 4 : longest);
			if (take_over(w))
				break;
			continue;
		}
		uint64_t n = w | WAITERS | (starving ? STARVING : 0);
		at("mark");
		if (n != w && !atomic_compare_exchange_strong(&head->word, &w, n))
			continue;
		if (woken && owner(n) == 0)
			futex_wake(lock_half(), 1); // the wake was for a starving waiter
		at("sleep");
		woken = !futex_wait(lock_half(), (uint32_t)n, (starving ? next_probe : starving_after) - waited);
		slept = true;
	}
	return head->word & ABANDONED;
}

static void unlock(bool written)
{
	uint64_t w;
	at("unlock");
	while (owner(w = head->word) == mine() && !free_word(w, written ? (w & ~ABANDONED) + VERSION : w))
		;
}

// Sleeps until the version is not since, or for ns. Reports whether the version is another.
static bool changed(uint32_t since, uint64_t ns)
{
	for (;;) {
		uint32_t e = head->event;
		if (!(e & ARMED)) {
			at("arm");
			if (!atomic_compare_exchange_strong(&head->event, &e, e | ARMED))
				continue;
			e |= ARMED;
		}
		// After arming: a process that moves the version from here on sees the event armed.
		uint64_t w = head->word;
		if (version(w) != since)
			return true;
		at("listen");
		if (!futex_wait(&head->event, e, ns))
			continue;
		if (owner_died(w))
			abandon(w);
		return version(head->word) != since;
	}
}

// Clears what a dead process has left in slot i, whose lock this process holds.
static void recover(uint32_t i)
{
	uint64_t w;
	at("recover_word");
	while (owner(w = head->word) == i + 1 && !abandon(w)) // first: see count_detach
		;
	if (!(slots[i] & TAKEN))
		return;
	count_detach();
	at("recover_slot");
	slots[i] = serial(slots[i]);
	at("recover_refs");
	head->refs--;
}

// Takes a free slot, or else that of a dead process.
static bool claim(void)
{
	for (uint64_t taken = 0; taken <= TAKEN; taken += TAKEN)
		for (uint32_t i = 0; i < slot_count; i++) {
			if ((slots[i] & TAKEN) != taken)
				continue;
			at("claim");
			if (record_lock(file, F_OFD_SETLK, F_WRLCK, i, 1) != F_WRLCK)
				continue;
			recover(i);
			at("refs_up");
			head->refs++; // before the slot is taken: never too low
			at("publish");
			slots[i] = (serial(slots[i]) + SERIAL) | TAKEN | (read_only ? READ_ONLY : 0) | (uint32_t)getpid();
			my_slot = i;
			return true;
		}
	return false;
}

// Whether the file is the one at its path.
static bool linked(void)
{
	struct stat st, there;
	return fstat(file, &st) == 0 && st.st_nlink > 0 && lstat(segment_path, &there) == 0 &&
	       there.st_dev == st.st_dev && there.st_ino == st.st_ino;
}

// Removes the file, whose file lock this process holds. Where the directory does
// not allow that, discard takes the file's memory away instead, unless a process
// is attached: then the next creator makes its segment in the empty file.
static void discard(void)
{
	at("unlink");
	if (unlink(segment_path) == 0 || errno == ENOENT)
		return;
	int problem = errno;
	if (held(file, 0, max_slots) || ftruncate(file, 0) != 0)
		fail(1, "%s: %s", segment_path, strerror(problem));
	adopt = true;
}

static void destroy(void)
{
	at("dead");
	if (head->state != removed)
		head->state = dead;
	discard();
}

// Destroys the segment if no process is attached. This process is not: it has
// detached, or failed to attach.
static void destroy_if_unused(void)
{
	for (;;) {
		at("ask");
		if (held(file, 0, slot_count))
			return;
		at("file_lock_last");
		if (!lock_file(file, 1000000000))
			return; // the process that holds it is stopped: it will find garbage
		at("still_linked_last");
		if (!linked())
			return; // removed
		at("ask_again");
		if (!held(file, 0, slot_count)) {
			destroy();
			return;
		}
		at("unlock_file");
		flock(file, LOCK_UN); // and look again: that process may have detached, and not waited for the file lock
	}
}

// Maps header and data of the file, whose header is right.
static void map_file(const header *page)
{
	slot_count = page->slots;
	size = page->size;
	head = mmap(NULL, page->data_off, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	data = mmap(NULL, size, read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, file, page->data_off);
	if (head == MAP_FAILED || data == MAP_FAILED)
		fail(1, "%s: %s", segment_path, strerror(errno));
	slots = (slot *)(head + 1);
}

// Maps what the segment has grown by.
static void follow_growth(void)
{
	size_t grown = head->size;
	if (grown <= size)
		return;
	data = mremap(data, size, grown, MREMAP_MAYMOVE);
	if (data == MAP_FAILED)
		fail(1, "%s: %s", segment_path, strerror(errno));
	size = grown;
}

// Makes a segment in the file, which is empty and whose file lock this process holds.
static void create_in(const char *key, const unsigned char hash[32], uint64_t bytes)
{
	struct timespec t;
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE), data_off = page > min_header ? page : min_header;
	uint32_t n = (data_off - (uint32_t)sizeof(header)) / (uint32_t)sizeof(slot);
	clock_gettime(CLOCK_REALTIME, &t);
	header h = {.order = 0x01020304, .format = 2, .data_off = data_off, .slots = n, .created = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec,
		.pid = (uint32_t)getpid(), .uid = geteuid(), .kind = record_locks, .key_len = (uint32_t)strlen(key), .size = bytes};
	memcpy(h.magic, magic, sizeof magic);
	memcpy(h.hash, hash, sizeof h.hash);
	memcpy(h.key, key, h.key_len < sizeof h.key ? h.key_len : sizeof h.key);
	errno = 0;
	bool done = getrandom(&h.id, sizeof h.id, 0) == sizeof h.id;
	at("write_header");
	done = done && pwrite(file, (char *)&h + 1, sizeof h - 1, 1) == sizeof h - 1;
	at("allocate");
	if (done)
		errno = posix_fallocate(file, 0, (off_t)(data_off + bytes)); // so that no access faults later
	if (!done || errno != 0) {
		int problem = errno;
		discard();
		fail(1, "%s: %s", segment_path, strerror(problem));
	}
	at("map");
	map_file(&h);
	if (!claim())
		fail(1, "%s: another program keeps the slots locked", segment_path);
	at("live");
	head->state = live;
	at("unlock_file");
	flock(file, LOCK_UN);
}

// Opens the file at segment_path and takes its file lock.
static void open_locked(bool create)
{
	for (;;) {
		at(create ? "create_file" : "open");
		file = open(segment_path, O_RDWR | (create ? O_CREAT : 0) | open_flags, 0600);
		if (file < 0 && errno == EACCES && create)
			file = open(segment_path, O_RDWR | open_flags); // fs.protected_regular
		at("file_lock");
		if (file < 0 || !lock_file(file, patience))
			fail(errno == ENOENT ? exit_none : 1, "%s: %s", segment_path, strerror(errno));
		at("still_linked");
		if (linked())
			return;
		close(file); // removed by the process that held the file lock before
	}
}

// Finds the live segment and maps it, with its file lock held. If there is none,
// find creates it with that many bytes, unless bytes is 0, and reports false.
static bool find(const char *key, uint64_t bytes)
{
	static _Alignas(16) char first[min_header];
	header *page = (header *)first;
	unsigned char hash[32];
	char name[64];
	struct stat st;
	sha256((const unsigned char *)key, strlen(key), hash);
	name_of(key, hash, name);
	snprintf(segment_path, sizeof segment_path, "%s/%s", dir, name);
	for (;;) {
		open_locked(bytes > 0);
		at("examine");
		enum verdict what = examine(file, page, &st);
		// If an empty file has attachments, another program has truncated their segment.
		if (bytes > 0 && what == half_made && st.st_size == 0 && (adopt || st.st_uid == geteuid()) && !held(file, 0, max_slots)) {
			create_in(key, hash, bytes);
			return false;
		}
		if (what == foreign)
			fail(1, "%s was not made by qshm of this format", segment_path);
		if (what == half_made) {
			discard();
		} else {
			if (memcmp(page->hash, hash, sizeof hash) != 0)
				fail(1, "%s was made for another key of the same name", segment_path);
			if (page->kind != record_locks)
				fail(1, "%s has slot locks of kind %" PRIu32 ", which this program cannot use", segment_path, page->kind);
			map_file(page);
			if (head->state == live && held(file, 0, slot_count))
				return true;
			destroy();
		}
		if (bytes == 0)
			fail(exit_none, "%s: every process that was attached has exited", segment_path);
		flock(file, LOCK_UN); // closing is not enough: a mapping keeps the lock
		close(file);
	}
}

// Attaches to the segment, or creates it if bytes is not 0.
static void attach(const char *key, uint64_t bytes)
{
	if (!find(key, bytes))
		return;
	bool claimed = bytes == 0 && claim();
	at("unlock_file");
	flock(file, LOCK_UN);
	if (!claimed) {
		destroy_if_unused(); // the last process to detach may have given up waiting for the file lock
		fail(1, "%s: %s", segment_path, bytes > 0 ? "exists" : "all attachments are taken");
	}
}

// Gives the slot back, and destroys the segment if no other process is attached.
static void detach(void)
{
	at("release_word");
	count_detach();
	at("clear_slot");
	slots[my_slot] = serial(slots[my_slot]);
	at("refs_down");
	head->refs--; // after the slot is cleared: never too low
	at("release_slot");
	record_lock(file, F_OFD_SETLK, F_UNLCK, my_slot, 1); // before asking: of two that detach at once, one finds no other
	destroy_if_unused();
	close(file);
}

// Streams.

typedef struct {
	_Atomic uint32_t used, idle;
	_Atomic uint64_t word;
	uint32_t name_len;
	_Atomic uint32_t moves;
	char name[64], pad[40];
} group;

typedef struct {
	_Atomic uint64_t owner, pos;
	_Atomic uint32_t mode, pid;
	char pad[104];
} cursor;

enum { writers = 64, groups = 16, cursors = 64 };
enum { every_message = 1, newest = 2, of_group = 16 }; // modes

typedef struct {
	unsigned char magic[8];
	uint32_t format, ring_off;
	uint64_t capacity;
	char pad1[40];
	_Atomic uint64_t tail, last;
	uint64_t sent;
	char pad2[40];
	_Atomic uint64_t head, floor;
	char pad3[48];
	_Atomic uint64_t wanted;
	char pad4[56];
	_Atomic uint64_t opened;
	char pad5[56];
	_Atomic uint64_t writers[writers];
	group groups[groups];
	cursor cursors[cursors];
} stream;

_Static_assert(offsetof(stream, tail) == 64 && offsetof(stream, head) == 128 && offsetof(stream, wanted) == 192, "layout");
_Static_assert(offsetof(stream, opened) == 256 && offsetof(stream, writers) == 320, "layout");
_Static_assert(offsetof(stream, groups) == 832 && offsetof(stream, cursors) == 2880, "layout");
_Static_assert(sizeof(group) == 128 && sizeof(cursor) == 128, "layout");

static const unsigned char stream_magic[8] = {'q', 's', 'h', 'm', 's', 't', 'r', 'm'};

#define PADDING UINT32_MAX // as a length
#define NO_CURSOR 255u
#define TENTATIVE UINT64_C(1)
#define HELD UINT64_C(2)
#define POSITION ((UINT64_C(1) << 60) - 8) // in a member's cursor

static stream *st;
static unsigned char *ring;
static _Atomic uint64_t *my_entry; // in writers

// Finds the stream in the data.
static bool find_stream(void)
{
	st = (stream *)data;
	if (size < 12288 + 64 || memcmp(st->magic, stream_magic, sizeof stream_magic) != 0 || st->format != 1 || st->ring_off != 12288 ||
	    st->capacity < 64 || st->capacity % 8 != 0 || st->capacity > size - 12288)
		return false;
	ring = data + st->ring_off;
	return true;
}

static uint64_t id_of(uint32_t i)
{
	uint64_t id = head->id ^ (slots[i] >> 34 << 16 | (i + 1));
	return id ? id : 1;
}

static bool alive(uint64_t id)
{
	uint32_t i = (uint32_t)((head->id ^ id) & OWNER) - 1;
	return i < slot_count && id_of(i) == id && (slots[i] & TAKEN) && (i == my_slot || held(file, i, 1));
}

// Moves the version without the lock.
static void notify(void)
{
	at("notify");
	atomic_fetch_add(&head->word, VERSION);
	signal_event();
}

static uint64_t record_size(uint64_t length) { return 8 + ((length + 7) & ~UINT64_C(7)); }

static uint64_t longest_message(void) { return (st->capacity / 2 & ~UINT64_C(7)) - 8; }

// The position of the record after the one at pos; 0 if there is no record.
static uint64_t after(uint64_t pos)
{
	uint64_t off = pos % st->capacity, word;
	memcpy(&word, ring + off, sizeof word);
	uint32_t length = (uint32_t)word;
	if (length == PADDING)
		return pos + (st->capacity - off);
	return length <= longest_message() && record_size(length) <= st->capacity - off ? pos + record_size(length) : 0;
}

static bool member(uint32_t mode) { return mode >= of_group && mode < of_group + groups; }

// The smallest position of the readers that hold up writers; tail if there is none.
// The words of the groups come first: a member writes the position to its cursor
// before it moves the word.
static uint64_t slowest(uint64_t tail)
{
	uint64_t next[groups], pos = tail;
	bool active[groups];
	for (int i = 0; i < groups; i++) {
		active[i] = st->groups[i].used && !st->groups[i].idle;
		next[i] = st->groups[i].word >> 8 << 3;
	}
	for (cursor *c = st->cursors; c < st->cursors + cursors; c++) {
		if (c->owner == 0)
			continue;
		uint32_t mode = c->mode;
		uint64_t there = c->pos;
		if (member(mode) && active[mode - of_group])
			there = (there == 0 ? next[mode - of_group] : there) & POSITION;
		else if (mode != every_message)
			continue;
		if ((int64_t)(tail - there) > (int64_t)(tail - pos))
			pos = there;
	}
	return pos;
}

// Puts this process into the list of writers. The caller holds the lock.
static bool become_writer(void)
{
	int own = 0;
	while (own < writers && st->writers[own] != 0 && alive(st->writers[own]))
		own++;
	if (own == writers)
		return false;
	my_entry = &st->writers[own];
	at("writer");
	*my_entry = id_of(my_slot);
	at("opened");
	st->opened++;
	// The dead come last: a reader that found no entry would take all writers for closed.
	for (int i = own + 1; i < writers; i++) {
		uint64_t id = st->writers[i];
		if (id != 0 && !alive(id))
			atomic_compare_exchange_strong(&st->writers[i], &id, 0);
	}
	return true;
}

// Where a message goes.
typedef struct {
	uint64_t padding, record, end; // positions; no padding if it begins at the record
} place;

// Moves head out of the way of the message at p. Reports false if a reader is behind:
// it knows from then on that a writer waits. The caller holds the lock.
static bool make_room(const place *p)
{
	uint64_t tail = st->tail, old = st->head;
	if (p->end - old <= st->capacity)
		return true;
	uint64_t oldest = p->end - st->capacity; // may stay
	if (oldest > st->floor || st->floor > tail) {
		uint64_t pos = slowest(tail);
		if (pos < oldest) {
			uint64_t w = st->wanted;
			at("want");
			while ((w == 0 || w > oldest + 1) && !atomic_compare_exchange_weak(&st->wanted, &w, oldest + 1))
				;
			at("look_again");
			pos = slowest(tail);
		}
		st->floor = pos;
		if (pos < oldest)
			return false;
	}
	while (old < oldest)
		if ((old = after(old)) == 0)
			fail(1, "another program has written into the ring");
	at("head");
	atomic_exchange(&st->head, old); // before any byte of the old records is overwritten
	return true;
}

// Marks the cursor of the member that has taken the last message of a group as held,
// in case that it has died right after.
static void confirm(uint32_t i)
{
	uint64_t word = st->groups[i].word, pos = word >> 8 << 3;
	if ((word & 255) == NO_CURSOR)
		return;
	cursor *c = &st->cursors[word & 63];
	uint64_t v = c->pos;
	if ((v & TENTATIVE) && v >> 60 == i && (v & POSITION) < pos)
		atomic_compare_exchange_strong(&c->pos, &v, v - TENTATIVE + HELD);
}

// Takes away what dead readers hold.
static void reap(void)
{
	bool living[groups] = {false};
	uint32_t moves[groups];
	lock();
	for (int i = 0; i < groups; i++)
		moves[i] = st->groups[i].moves;
	for (cursor *c = st->cursors; c < st->cursors + cursors; c++) {
		uint64_t id = c->owner;
		uint32_t mode = c->mode;
		if (id != 0 && alive(id)) {
			if (member(mode))
				living[mode - of_group] = true;
			continue;
		}
		if (member(mode))
			confirm(mode - of_group);
		at("reap");
		if (id != 0 && !(member(mode) && (c->pos & HELD)))
			atomic_compare_exchange_strong(&c->owner, &id, 0);
	}
	for (int i = 0; i < groups; i++)
		if (!living[i] && st->groups[i].moves == moves[i])
			st->groups[i].idle = 1;
	unlock(true);
}

static void put_word(uint64_t pos, uint64_t word) { memcpy(ring + pos % st->capacity, &word, sizeof word); }

// Sends a message. Reports false if there are too many writers.
static bool send_message(const char *message, uint64_t length)
{
	const uint64_t first = 25000000, longest = 2000000000;
	for (uint64_t start = now();;) {
		lock();
		if (!my_entry && !become_writer()) {
			unlock(false);
			return false;
		}
		uint32_t since = version(head->word);
		uint64_t tail = st->tail, left = st->capacity - tail % st->capacity;
		place p = {tail, tail, 0};
		if (record_size(length) > left)
			p.record += left;
		p.end = p.record + record_size(length);
		if (make_room(&p)) {
			memcpy(ring + p.record % st->capacity + 8, message, length);
			at("padding");
			if (p.padding != p.record)
				put_word(p.padding, PADDING);
			at("record");
			put_word(p.record, st->sent << 32 | length);
			at("tail");
			st->tail = p.end;
			at("sent");
			st->sent++;
			if (p.record - st->last >= 4096)
				st->last = p.record;
			unlock(true);
			return true;
		}
		unlock(false);
		uint64_t quarter = (now() - start) / 4;
		if (!changed(since, quarter < first ? first : quarter < longest ? quarter : longest))
			reap();
	}
}

// The readers may have read everything, and wait for a writer that does not come.
static void close_stream(void)
{
	uint64_t id = id_of(my_slot);
	at("close");
	if (my_entry && atomic_compare_exchange_strong(my_entry, &id, 0))
		notify();
}

// The commands that attach. Each returns the status, and the caller detaches.

static int put(const void *p, size_t n)
{
	return fwrite(p, 1, n, stdout) == n && fflush(stdout) == 0 ? 0 : 1;
}

static int put_data(void)
{
	follow_growth();
	return put(data, size);
}

static void read_to_end(void)
{
	fflush(stdout);
	while (getchar() != EOF)
		;
}

static int keep(void)
{
	printf("created\n");
	read_to_end();
	return put_data();
}

// Copies the data as they were at one moment, as far as they are mapped. It takes
// the lock if writers are faster than the copy. Reports whether the data are abandoned.
static bool copy(unsigned char *to)
{
	for (int try = 0; try < 4; try++) {
		uint64_t w = head->word;
		if (w & ABANDONED)
			break;
		if (owner(w) != 0)
			continue;
		memcpy(to, data, size);
		atomic_thread_fence(memory_order_acquire); // the copy comes before the second look
		uint64_t again = head->word;
		if (owner(again) == 0 && version(again) == version(w))
			return false;
	}
	bool abandoned = lock();
	memcpy(to, data, size);
	unlock(false);
	return abandoned;
}

static int snapshot(long times)
{
	unsigned char *to = NULL;
	int status = 0;
	while (status == 0 && times-- > 0) {
		follow_growth();
		if (!(to = realloc(to, size)))
			fail(1, "no memory for a copy of %zu bytes", size);
		status = copy(to) ? exit_abandoned : put(to, size);
	}
	if (status == exit_abandoned)
		fputs("the last writer died holding the lock\n", stderr);
	free(to);
	return status;
}

static int wait_for(uint32_t since, double longest)
{
	while (!changed(since, (uint64_t)(longest * 1e9)))
		;
	return printf("%" PRIu32 "\n", version(head->word)) < 0;
}

static int hold(void)
{
	printf(lock() ? "locked, abandoned\n" : "locked\n");
	read_to_end();
	unlock(true);
	return 0;
}

static int update(long times)
{
	while (times-- > 0) {
		if (lock())
			fputs("abandoned\n", stderr);
		follow_growth();
		for (size_t i = 0; i < size / 8; i++)
			((uint64_t *)data)[i]++;
		unlock(true);
	}
	return 0;
}

static int grow(uint64_t bytes)
{
	at("file_lock");
	int problem = lock_file(file, patience) ? 0 : errno;
	at("still_linked");
	if (problem == 0 && !linked())
		problem = ENOENT;
	uint64_t old = head->size;
	if (problem == 0 && bytes > old) {
		at("allocate_more");
		problem = posix_fallocate(file, (off_t)(head->data_off + old), (off_t)(bytes - old));
		at("publish_size");
		if (problem == 0)
			head->size = bytes; // after the memory is there
	}
	at("unlock_file");
	flock(file, LOCK_UN);
	follow_growth();
	if (problem == 0)
		return printf("%zu\n", size) < 0;
	fprintf(stderr, "%s: %s\n", segment_path, strerror(problem));
	return 1;
}

static int send_lines(void)
{
	if (!find_stream()) {
		fprintf(stderr, "%s is no stream\n", segment_path);
		return 1;
	}
	char *line = NULL;
	size_t room = 0;
	int status = 0;
	for (ssize_t n; status == 0 && (n = getline(&line, &room, stdin)) >= 0;) {
		if (n > 0 && line[n - 1] == '\n')
			n--;
		if ((uint64_t)n > longest_message()) {
			fprintf(stderr, "a line has %zd bytes; this ring takes up to %" PRIu64 "\n", n, longest_message());
			status = 1;
		} else if (!send_message(line, (uint64_t)n)) {
			fprintf(stderr, "there are %d writers\n", writers);
			status = 1;
		}
	}
	free(line);
	close_stream();
	return status;
}

// Frees the key. Attached processes keep the memory.
static int remove_segment(const char *key)
{
	find(key, 0);
	at("removed");
	head->state = removed; // first: the process that finds this at the path goes on with it
	at("unlink");
	if (unlink(segment_path) == 0)
		return 0;
	perror(segment_path);
	head->state = live;
	return 1;
}

static const struct {
	const char *name;
	int least, most; // arguments
	bool read_only;
} commands[] = {
	{"list", 0, 0, true}, {"create", 2, 2, false}, {"read", 1, 1, true}, {"snapshot", 1, 2, true}, {"wait", 2, 3, true},
	{"lock", 1, 1, false}, {"update", 1, 2, false}, {"grow", 2, 2, false}, {"remove", 1, 1, true}, {"send", 1, 1, false},
};

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); // a write that fails ends in order
	fault = getenv("QSHM_FAULT");
	size_t i = 0, known = sizeof commands / sizeof *commands;
	while (i < known && (argc < 2 || strcmp(argv[1], commands[i].name) != 0))
		i++;
	if (i == known || argc - 2 < commands[i].least || argc - 2 > commands[i].most) {
		fputs(usage, stderr);
		return 2;
	}
	const char *command = commands[i].name, *key = argv[2], *more = argc > 3 ? argv[3] : "1";
	bool create = strcmp(command, "create") == 0;
	uint64_t bytes = create ? strtoull(more, NULL, 10) : 0;
	if (create && bytes == 0)
		fail(1, "a segment has at least one byte");
	read_only = commands[i].read_only;
	find_store(create);
	if (strcmp(command, "list") == 0)
		return list();
	if (strcmp(command, "remove") == 0)
		return remove_segment(key);
	attach(key, bytes);
	int status = 0;
	switch (*command) {
	case 'c': status = keep(); break;
	case 'r': status = put_data(); break;
	case 's': status = command[1] == 'e' ? send_lines() : snapshot(atol(more)); break;
	case 'w': status = wait_for((uint32_t)strtoul(more, NULL, 10), argc > 4 ? atof(argv[4]) : 1); break;
	case 'l': status = hold(); break;
	case 'u': status = update(atol(more)); break;
	case 'g': status = grow(strtoull(more, NULL, 10)); break;
	}
	detach();
	return status;
}
