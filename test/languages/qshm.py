#!/usr/bin/env python3
"""Looks at memory that processes share by qshm, without qshm: this program follows
shm/FORMAT.md and shm/stream/FORMAT.md, with Python's standard library only.

It takes no slot, except to follow a stream, because Python has no compare-and-swap to
take one with; follow uses that of libatomic, a library of GCC. Without a slot the
program keeps nothing alive: a segment ends with its last attachment, whether or not
this program reads it. What is mapped stays readable all the same, and the slot locks
tell when the segment has ended.
"""

import argparse
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import platform
import re
import signal
import stat
import struct
import sys
import threading
import time

# The header, up to the size of the data.
HEADER = struct.Struct("=8sIIIIQqIIIIQ32s32xIIQ")
MAGIC = b"\0qshm\r\n\x1a"
MIN_HEADER, MAX_HEADER = 4096, 2 << 20
STATE, REFS, SIZE, WORD, EVENT, KEY, SLOTS = 128, 132, 136, 192, 256, 320, 576
KEY_SIZE = 256
MAKING, LIVE, DEAD, REMOVED = range(4)
RECORD_LOCKS = 1

TAKEN, READ_ONLY, SERIAL = 1 << 32, 1 << 33, 1 << 34  # in a slot
OWNER, DETACH, DETACHES = 0xFFFF, 1 << 16, 0x1FFF << 16  # in the lock word
ABANDONED, STARVING, WAITERS, VERSION = 1 << 29, 1 << 30, 1 << 31, 1 << 32
ARMED = 1  # in the event word

EXIT_NONE, EXIT_ABANDONED = 3, 4


class NoSegment(Exception):
    """There is no segment of the key, or it has ended."""


class Abandoned(Exception):
    """The last writer died holding the lock."""


class Refused(Exception):
    """This program does not know the file."""


# The store.


def store_dir():
    """The directory. It is not made: there is nothing to read in a new one."""
    own = os.environ.get("QSHM_DIR")
    directory = own or f"/dev/shm/qshm-{os.geteuid()}"
    if not own and not os.path.lexists(directory) and not os.access("/dev/shm", os.W_OK):
        directory = f"{os.environ.get('TMPDIR') or '/tmp'}/qshm-{os.geteuid()}"
    try:
        info = os.lstat(directory)
    except FileNotFoundError:
        raise NoSegment(f"there is no store {directory}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise Refused(f"{directory} is not a directory")
    if not own and (info.st_uid != os.geteuid() or info.st_mode & 0o077):
        raise Refused(f"{directory} belongs to another user, or is open to others")
    return directory


def name_of(key):
    """The name of the file for a key, which is bytes."""
    prefix, gap = "", False
    for c in key.decode("latin-1"):
        if len(prefix) == 24:
            break
        if not (c.isascii() and c.isalnum()):
            gap = prefix != ""
            continue
        if gap and len(prefix) < 23:
            prefix += "_"
        gap = False
        prefix += c.lower()
    number = int.from_bytes(hashlib.sha256(key).digest()[:20], "big")
    tail = "".join("0123456789abcdefghijklmnopqrstuv"[number >> shift & 31] for shift in range(155, -1, -5))
    return f"{prefix}-{tail}.qshm" if prefix else f"{tail}.qshm"


NAME = re.compile(r"([a-z0-9][a-z0-9_]{0,23}-)?[0-9a-v]{32}\.qshm")


def open_file(path, flags):
    """No symbolic link is followed, and no pipe waited for."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused(f"{path} is not a file")
    return fd


F_OFD_GETLK, F_OFD_SETLK = 36, 37


def slot_lock(kind, slot, count=1):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, (1 << 40) + slot, count, 0)


def held(fd, first, count=1):
    """Whether a process holds the lock of one of the slots from first on."""
    try:
        return struct.unpack_from("h", fcntl.fcntl(fd, F_OFD_GETLK, slot_lock(fcntl.F_RDLCK, first, count)))[0] != fcntl.F_UNLCK
    except OSError:
        return True  # if it cannot be determined, the process counts as alive


# A segment, as its file says.


class Header:
    """What the beginning of a file says; Refused if it is no segment's."""

    def __init__(self, page, file_size):
        self.half_made = file_size == 0 or 1 < file_size <= MIN_HEADER and not page[1:].strip(b"\0")
        self.size, self.key, self.word = 0, b"", 0
        if self.half_made:
            return
        if len(page) < SLOTS:
            raise Refused("it is too short")
        (magic, order, version, self.data_off, self.slots, self.id, _, _, _, kind, key_len, _, self.hash,
         self.state, _, self.size) = HEADER.unpack_from(page)
        if magic != MAGIC or order != 0x01020304 or version != 2:
            raise Refused("it was not made by qshm of this format and byte order")
        if self.state == MAKING:
            self.half_made, self.size = True, 0
            return
        if (self.data_off < MIN_HEADER or self.data_off > min(MAX_HEADER, file_size) or self.data_off % mmap.PAGESIZE
                or not 0 < self.slots <= 0xFFFF or SLOTS + self.slots * 8 > self.data_off
                or self.size == 0 or self.data_off + self.size > file_size):
            raise Refused("its header contradicts itself, or it is truncated")
        if kind != RECORD_LOCKS:
            raise Refused(f"it has slot locks of kind {kind}, which this program cannot use")
        self.key = page[KEY:KEY + min(key_len, KEY_SIZE)]
        self.word = struct.unpack_from("=Q", page, WORD)[0]


def attachments(fd, page, slots):
    """The live attachments: slot, process, whether read-only."""
    found = []
    for i in range(slots):
        slot = struct.unpack_from("=Q", page, SLOTS + i * 8)[0]
        if slot & TAKEN and held(fd, i):
            found.append((i, slot & 0xFFFFFFFF, bool(slot & READ_ONLY)))
    return found


def owner(word):
    """The slot of the attachment that holds the lock, or None."""
    return (word & 0xFFFF) - 1 if word & 0xFFFF else None


def version(word):
    return word >> 32


def escaped(key):
    return "".join(chr(c) if 0x21 <= c <= 0x7E and c != 0x5C else f"\\x{c:02x}" for c in key)


def describe(directory, name):
    """One line of the list, or None if the file is no segment."""
    try:
        fd = open_file(os.path.join(directory, name), os.O_RDONLY)
    except PermissionError:
        return f"{name}\tunknown\t0\t0\t0\t-\t-\t"
    except (OSError, Refused):
        return None
    try:
        page = os.pread(fd, MIN_HEADER, 0)
        size = os.fstat(fd).st_size  # after the page: a header that says the file is complete is right from then on
        header = Header(page, size)
        live = []
        if not header.half_made:
            page = os.pread(fd, header.data_off, 0)
            live = attachments(fd, page, header.slots)
    except Refused:
        return None
    finally:
        os.close(fd)
    status = "live"
    if not live or header.state == DEAD:
        status = "dead"
    elif header.state == REMOVED:
        status = "removed"
    holder = next((str(pid) for i, pid, _ in live if i == owner(header.word)), "-")
    pids = ",".join(f"{pid}r" if read_only else str(pid) for _, pid, read_only in live) or "-"
    return f"{name}\t{status}\t{header.size}\t{version(header.word)}\t{len(live)}\t{holder}\t{pids}\t{escaped(header.key)}"


# A segment, as it is mapped.


class Reader:
    """A segment that is mapped, without a slot in it."""

    def __init__(self, key, writable_header=False):
        directory = store_dir()
        path = os.path.join(directory, name_of(key))
        self.writable = writable_header
        try:
            try:
                self.fd = open_file(path, os.O_RDWR if writable_header else os.O_RDONLY)
            except PermissionError:
                self.writable = False  # then it cannot arm the event
                self.fd = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            raise NoSegment(f"no process has a segment of this key in {directory}") from None
        self.header = Header(os.pread(self.fd, MIN_HEADER, 0), os.fstat(self.fd).st_size)
        if self.header.half_made:
            raise NoSegment("its creator has not finished it")
        if self.header.hash != hashlib.sha256(key).digest():
            raise Refused("it was made for another key of the same name")
        self.head = mmap.mmap(self.fd, self.header.data_off, mmap.MAP_SHARED,
                              mmap.PROT_READ | (mmap.PROT_WRITE if self.writable else 0))
        self.data = None
        if self.load32(STATE) == REMOVED or self.ended():
            raise NoSegment(f"every process that was attached in {directory} has exited")

    # In a native format these are one load each, as the format asks for.
    def load32(self, offset):
        return struct.unpack_from("I", self.head, offset)[0]

    def load64(self, offset):
        return struct.unpack_from("Q", self.head, offset)[0]

    def word(self):
        return self.load64(WORD)

    def ended(self):
        """Whether no process is left that could change anything."""
        return self.load32(STATE) in (MAKING, DEAD) or not held(self.fd, 0, self.header.slots)

    def read(self):
        """The data as they stand, which may be half-written."""
        end = self.header.data_off + self.load64(SIZE)
        if self.data is None or len(self.data) < end:  # it has grown
            self.data = mmap.mmap(self.fd, end, mmap.MAP_SHARED, mmap.PROT_READ)
        return self.data[self.header.data_off:]

    def snapshot(self):
        """The data as they were at one moment."""
        held_since, last = 0.0, None
        while True:
            word = self.word()
            if word & ABANDONED:
                raise Abandoned("the last writer died holding the lock")
            if owner(word) is None:
                copy = self.read()
                fence()
                now = self.word()
                if owner(now) is None and version(now) == version(word):
                    return copy
                continue
            if word != last:
                held_since, last = time.monotonic(), word
            elif time.monotonic() - held_since > 0.025:
                # There may be no process that takes the lock over and marks the word.
                if not held(self.fd, owner(word)) and self.word() == word:
                    raise Abandoned("the owner of the lock has died")
                last = None
            time.sleep(0.0001)

    def wait(self, since, longest):
        """The version, once it is another than since; sleeps of longest seconds."""
        futex = Futex(self.head) if self.writable and Futex.number else None
        while True:
            event = self.load32(EVENT)
            if futex and not event & ARMED:
                if futex.set_bits(EVENT, ARMED):
                    continue
                futex = None  # a kernel, or an emulator, that does not know how
            # After arming: a process that moves the version from here on sees the event armed.
            if version(self.word()) != since:
                return version(self.word())
            if futex:
                slept = futex.wait(EVENT, event, longest)
            else:
                time.sleep(0.002)
                slept = True
            if slept and self.ended():
                if version(self.word()) != since:
                    continue
                raise NoSegment("every process that was attached has exited")


_fence = threading.Lock()
_fence.acquire()


def fence():
    """Keeps loads in order: none before it moves down over the release of a lock,
    none after it up over the taking."""
    _fence.release()
    _fence.acquire()


class Futex:
    """futex(2) on words of a mapping that is writable.

    The kernel also changes a word atomically, which Python cannot:
    FUTEX_WAKE_OP, with no waiter to wake.
    """

    WAIT, WAKE, WAKE_OP = 0, 1, 5  # not private: other processes wait too
    OP_OR, CMP_EQ = 2, 0

    _numbers = {
        ("x86_64", 8): 202, ("x86_64", 4): 240, ("i686", 4): 240, ("i586", 4): 240, ("i386", 4): 240,
        ("aarch64", 8): 98, ("aarch64", 4): 240, ("armv7l", 4): 240, ("armv6l", 4): 240, ("riscv64", 8): 98,
        ("loongarch64", 8): 98, ("s390x", 8): 238, ("ppc64", 8): 221, ("ppc64le", 8): 221,
    }
    number = _numbers.get((platform.machine(), struct.calcsize("P"))) if sys.platform == "linux" else None

    class _Timespec(ctypes.Structure):
        _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

    def __init__(self, mapping):
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self.syscall = ctypes.CDLL(None, use_errno=True).syscall
        self.syscall.restype = ctypes.c_long
        self.own = ctypes.c_uint32()

    def _call(self, address, operation, value, fourth, fifth=0, sixth=0):
        result = self.syscall(ctypes.c_long(self.number), ctypes.c_void_p(address), ctypes.c_long(operation),
                              ctypes.c_ulong(value), fourth, ctypes.c_void_p(fifth), ctypes.c_ulong(sixth))
        return 0 if result >= 0 else ctypes.get_errno()

    def wait(self, offset, value, seconds):
        """Sleeps while the word is value. Whether the time was up."""
        limit = self._Timespec(int(seconds), int(seconds % 1 * 1e9))
        return self._call(self.base + offset, self.WAIT, value, ctypes.byref(limit)) == errno.ETIMEDOUT

    def wake(self, offset, count):
        self._call(self.base + offset, self.WAKE, count, ctypes.c_ulong(0))

    def set_bits(self, offset, bit):
        """Sets a bit atomically. Whether that worked."""
        operation = self.OP_OR << 28 | self.CMP_EQ << 24 | bit << 12
        return self._call(ctypes.addressof(self.own), self.WAKE_OP, 0, ctypes.c_ulong(0),
                          self.base + offset, operation) == 0


# A segment, with a slot in it.


class Words:
    """Atomic operations on the words of a mapping that is writable, by libatomic."""

    ORDER = 5  # sequentially consistent

    def __init__(self, mapping):
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        try:
            self.library = ctypes.CDLL("libatomic.so.1")
        except OSError as problem:
            raise Refused(f"no compare-and-swap: {problem}") from None
        self.library["__atomic_is_lock_free"].restype = ctypes.c_bool
        if not self.library["__atomic_is_lock_free"](ctypes.c_size_t(8), None):
            raise Refused("no compare-and-swap of 64 bits on this processor")

    def _call(self, name, result, offset, *arguments):
        function = self.library["__atomic_" + name]
        function.restype = result
        return function(ctypes.c_void_p(self.base + offset), *arguments, self.ORDER)

    def load(self, offset):
        return self._call("load_8", ctypes.c_uint64, offset)

    def load32(self, offset):
        return self._call("load_4", ctypes.c_uint32, offset)

    def store(self, offset, value):
        self._call("store_8", None, offset, ctypes.c_uint64(value))

    def store32(self, offset, value):
        self._call("store_4", None, offset, ctypes.c_uint32(value))

    def add(self, offset, value):
        return self._call("fetch_add_8", ctypes.c_uint64, offset, ctypes.c_uint64(value))

    def add32(self, offset, value):
        return self._call("fetch_add_4", ctypes.c_uint32, offset, ctypes.c_uint32(value))

    def swap(self, offset, old, new):
        """Whether the word was old, and is new."""
        return self._call("compare_exchange_8", ctypes.c_bool, offset, ctypes.byref(ctypes.c_uint64(old)),
                          ctypes.c_uint64(new), self.ORDER)

    def swap32(self, offset, old, new):
        return self._call("compare_exchange_4", ctypes.c_bool, offset, ctypes.byref(ctypes.c_uint32(old)),
                          ctypes.c_uint32(new), self.ORDER)


class Attachment(Reader):
    """A segment that is mapped, with a slot in it. It leaves a segment without
    attachments, and a file that is not finished, to the next process."""

    PATIENCE = 10
    LOCK = WORD + (4 if sys.byteorder == "big" else 0)  # waiters sleep on the lower half of the word

    def __init__(self, key):
        self.path = os.path.join(store_dir(), name_of(key))
        while True:
            super().__init__(key, writable_header=True)
            if not self.writable or not Futex.number:
                raise Refused("it cannot be written, or this is not Linux")
            self.lock_file()
            if self.linked():
                break
            os.close(self.fd)
        if self.ended() or self.load32(STATE) != LIVE:
            raise NoSegment("every process that was attached has exited")
        self.memory = mmap.mmap(self.fd, self.header.data_off + self.load64(SIZE))
        self.words, self.futex = Words(self.memory), Futex(self.memory)
        self.slot = self.claim()
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def lock_file(self):
        start = time.monotonic()
        while True:
            try:
                return fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - start > self.PATIENCE:
                    raise
                time.sleep(0.001)

    def linked(self):
        """Whether the file is the one at its path."""
        mine = os.fstat(self.fd)
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return mine.st_nlink > 0 and (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def claim(self):
        """Takes a free slot, or else that of a dead process."""
        for taken in (0, TAKEN):
            for i in range(self.header.slots):
                at = SLOTS + i * 8
                if self.words.load(at) & TAKEN != taken:
                    continue
                try:
                    fcntl.fcntl(self.fd, F_OFD_SETLK, slot_lock(fcntl.F_WRLCK, i))
                except OSError:
                    continue
                word = self.words.load(WORD)
                while owner(word) == i and not self.abandon(word):
                    word = self.words.load(WORD)
                serial = self.words.load(at) // SERIAL * SERIAL
                if taken:
                    self.count_detach()
                    self.words.store(at, serial)
                    self.words.add32(REFS, -1)
                self.words.add32(REFS, 1)  # before the slot is taken: never too low
                self.words.store(at, (serial + SERIAL) % (1 << 64) | TAKEN | os.getpid())
                return i
        raise Refused("all attachments are taken")

    def detach(self):
        """Gives the slot back, and destroys the segment if no other process is attached."""
        self.unlock(False)
        self.count_detach()
        at = SLOTS + self.slot * 8
        self.words.store(at, self.words.load(at) // SERIAL * SERIAL)
        self.words.add32(REFS, -1)
        fcntl.fcntl(self.fd, F_OFD_SETLK, slot_lock(fcntl.F_UNLCK, self.slot))
        while not held(self.fd, 0, self.header.slots):
            try:
                self.lock_file()
            except BlockingIOError:
                return
            if not self.linked():
                return
            if not held(self.fd, 0, self.header.slots):
                if self.words.load32(STATE) != REMOVED:
                    self.words.store32(STATE, DEAD)
                os.unlink(self.path)
                return
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def count_detach(self):
        while True:
            word = self.words.load(WORD)
            if self.words.swap(WORD, word, word & ~DETACHES | (word + DETACH) & DETACHES):
                return

    def id(self):
        return self.id_of(self.slot)

    def id_of(self, slot):
        serial = self.words.load(SLOTS + slot * 8) // SERIAL
        return (self.header.id ^ (serial << 16 | slot + 1)) % (1 << 64) or 1

    def alive(self, attachment):
        """Whether the process with the attachment of this ID is alive."""
        slot = ((self.header.id ^ attachment) & 0xFFFF) - 1
        return (0 <= slot < self.header.slots and self.words.load(SLOTS + slot * 8) & TAKEN != 0
                and self.id_of(slot) == attachment and (slot == self.slot or held(self.fd, slot)))

    # The lock.

    def lock(self):
        start, next_probe, slept, woken = time.monotonic(), 0.025, False, False
        while True:
            word, waited = self.words.load(WORD), time.monotonic() - start
            starving = waited >= 0.001
            if owner(word) is None and (starving or not word & STARVING):
                if self.words.swap(WORD, word, word & ~STARVING | self.slot + 1 | (WAITERS if slept else 0)):
                    return
                continue
            if waited >= next_probe:
                next_probe = waited + min(max(waited / 4, 0.025), 2)
                if self.owner_died(word) and self.take_over(word):
                    return
                continue
            marked = word | WAITERS | (STARVING if starving else 0)
            if marked != word and not self.words.swap(WORD, word, marked):
                continue
            if woken and owner(marked) is None:
                self.futex.wake(self.LOCK, 1)  # the wake was for a starving waiter
            woken = not self.futex.wait(self.LOCK, marked % (1 << 32), (next_probe if starving else 0.001) - waited)
            slept = True

    def unlock(self, written):
        while True:
            word = self.words.load(WORD)
            if owner(word) != self.slot or self.free(word, moved(word & ~ABANDONED) if written else word):
                return

    def owner_died(self, word):
        slot = owner(word)
        return slot is not None and slot != self.slot and (slot >= self.header.slots or not held(self.fd, slot))

    def take_over(self, word):
        if not self.words.swap(WORD, word, moved(word) & ~(OWNER | STARVING) | self.slot + 1 | ABANDONED | WAITERS):
            return False
        self.signal()
        return True

    def abandon(self, word):
        return self.free(word, moved(word) | ABANDONED)

    def free(self, word, new):
        """Swaps the lock word for a new one without an owner. Whether that worked."""
        if not self.words.swap(WORD, word, new & ~(OWNER | WAITERS)):
            return False
        if word & WAITERS:
            self.futex.wake(self.LOCK, 1)
        if version(new) != version(word):
            self.signal()
        return True

    # The version.

    def signal(self):
        """Wakes the waiters for the version, which has moved."""
        event = self.words.load32(EVENT)
        while event & ARMED:
            if self.words.swap32(EVENT, event, (event + 1) % (1 << 32)):
                return self.futex.wake(EVENT, 0x7FFFFFFF)
            event = self.words.load32(EVENT)

    def notify(self):
        """Moves the version without the lock."""
        self.words.add(WORD, VERSION)
        self.signal()

    def sleep(self, since, longest):
        """Sleeps until the version is not since, or for longest seconds. Whether the time was up."""
        while True:
            event = self.words.load32(EVENT)
            if not event & ARMED:
                if not self.words.swap32(EVENT, event, event | ARMED):
                    continue
                event |= ARMED
            word = self.words.load(WORD)
            if version(word) != since:
                return False
            if self.futex.wait(EVENT, event, longest):
                if self.owner_died(word):
                    self.abandon(word)
                return True


def moved(word):
    return (word + VERSION) % (1 << 64)


# A stream.


class WriterDied(Exception):
    """A writer has died, and no other one is there."""


class Follower:
    """A reader of a stream, with a cursor of its own."""

    HEADER = struct.Struct("=8sIIQ")
    RING, ENTRIES = 12288, 64
    TAIL, LAST, SENT, HEAD, FLOOR, WANTED, OPENED, WRITERS, CURSORS = 64, 72, 80, 128, 136, 192, 256, 320, 2880
    CURSOR, OWNER, POS, MODE, PID = 128, 0, 8, 16, 20  # a cursor
    EVERY, NEWEST, GROUP = 1, 2, 16  # modes
    PADDING = 0xFFFFFFFF

    def __init__(self, segment, mode, oldest):
        self.segment, self.mode = segment, mode
        self.data = segment.header.data_off
        (magic, number, ring, self.capacity) = self.HEADER.unpack_from(segment.memory, self.data)
        size = segment.load64(SIZE)
        if (magic != b"qshmstrm" or number != 1 or ring != self.RING or self.capacity < 64 or self.capacity % 8
                or self.capacity > size - self.RING):
            raise Refused("it is no stream of this format")
        segment.lock()
        try:
            self.claim(oldest)
        finally:
            segment.unlock(True)

    def load(self, offset):
        return self.segment.words.load(self.data + offset)

    def store(self, offset, value):
        self.segment.words.store(self.data + offset, value)

    def swap(self, offset, old, new):
        return self.segment.words.swap(self.data + offset, old, new)

    def claim(self, oldest):
        """Takes a cursor, with the lock held."""
        words = self.segment.words
        for i in range(self.ENTRIES):
            at = self.CURSORS + i * self.CURSOR
            reader, mode = self.load(at + self.OWNER), self.data + at + self.MODE
            if reader and (words.load32(mode) >= self.GROUP and self.load(at + self.POS) or self.segment.alive(reader)):
                continue
            words.store32(mode, 0)
            if not self.swap(at + self.OWNER, reader, self.segment.id()):
                continue
            self.cursor = at
            self.pos = self.seen = self.load(self.HEAD) if oldest else self.load(self.TAIL)
            words.store32(self.data + at + self.PID, os.getpid())
            self.store(at + self.POS, self.pos)
            words.store32(mode, self.mode)
            self.store(self.FLOOR, min(self.load(self.FLOOR), self.pos))
            break
        else:
            raise Refused("the stream has no free cursor")
        self.told = self.pos
        self.expected = None if oldest else self.load(self.SENT) % (1 << 32)
        # Writers that have ended before do not end this reader, unless it wants their messages.
        self.former, self.base = set(), 0
        if not oldest:
            there = [w for w in self.writers() if w]
            self.former = {w for w in there if not self.segment.alive(w)}
            self.base = self.load(self.OPENED) - len(there) + len(self.former)

    def close(self):
        self.swap(self.cursor + self.OWNER, self.segment.id(), 0)
        self.store(self.WANTED, 0)
        self.segment.notify()

    def writers(self):
        return [self.load(self.WRITERS + i * 8) for i in range(self.ENTRIES)]

    def record(self, pos):
        """The record at pos: its message's number and length, None for padding, and the position after it."""
        offset = pos % self.capacity
        left = self.capacity - offset
        word = self.load(self.RING + offset)
        number, length = word >> 32, word % (1 << 32)
        if length == self.PADDING:
            return number, None, pos + left
        size = 8 + (length + 7) // 8 * 8
        if length > self.capacity // 16 * 8 - 8 or size > left:
            raise Refused("another program has written into the ring")
        return number, length, pos + size

    def message(self, pos, length):
        start = self.data + self.RING + pos % self.capacity + 8
        return self.segment.memory[start:start + length]

    def lost(self, number):
        """How many messages this reader has missed before this one. A writer that has died
        between a message and its count leaves the count one too low."""
        missed = 0 if self.expected is None else (number - self.expected) % (1 << 32)
        self.expected = (number + 1) % (1 << 32)
        return missed if missed < 1 << 31 else 0

    def messages(self, longest):
        """Each message, and how many were lost before it, until all writers have closed."""
        poll = self.poll_every if self.mode == self.EVERY else self.poll_newest
        while True:
            found = poll()
            if found:
                yield found
            else:
                self.advance()
                if not self.wait(longest):
                    return

    def poll_every(self):
        """The next message, or None."""
        while True:
            if self.pos == self.seen:
                self.seen = self.load(self.TAIL)
                if self.pos == self.seen:
                    return None
            if self.pos != self.told and (self.load(self.WANTED) or self.pos - self.told >= self.capacity // 8):
                self.advance()
            at = self.pos
            number, length, self.pos = self.record(at)
            if length is not None:
                return self.lost(number), self.message(at, length)

    def poll_newest(self):
        """The newest message, or None if it was read."""
        for _ in range(8):
            if self.load(self.TAIL) == self.pos:
                return None
            try:
                found = self.copy_newest()
            except Refused:
                continue  # a writer has overwritten what was looked at
            if found:
                return found
        self.segment.lock()  # the writers are faster
        try:
            return self.copy_newest()
        finally:
            self.segment.unlock(False)

    def copy_newest(self):
        """The newest message, or None if a writer has overwritten it meanwhile."""
        head = self.load(self.HEAD)  # first: it never overtakes tail
        tail, last = self.load(self.TAIL), self.load(self.LAST)
        pos = max(self.pos, head)
        if pos < last < tail:
            pos = last
        at = number = length = None
        while pos < tail:
            record = self.record(pos)
            if record[1] is not None:
                at, (number, length) = pos, record[:2]
            pos = record[2]
        if at is None:
            return None
        copy = self.message(at, length)
        self.store(self.cursor + self.POS, tail)  # orders the copy before the look at head
        if pos != tail or self.load(self.HEAD) > at:
            return None
        self.pos = tail
        return self.lost(number), copy

    def advance(self):
        """Tells the writers what was read."""
        if self.told == self.pos:
            return
        self.told = self.pos
        self.store(self.cursor + self.POS, self.pos)
        wanted = self.load(self.WANTED)
        if self.mode == self.EVERY and wanted and self.pos >= wanted - 1 and self.swap(self.WANTED, wanted, 0):
            self.segment.notify()

    def wait(self, longest):
        """Sleeps until something has changed. False if all writers have closed."""
        since = version(self.segment.words.load(WORD))
        if self.load(self.TAIL) != self.pos:
            return True
        if self.writers_gone(False):
            return False
        return not (self.segment.sleep(since, longest) and self.writers_gone(True))

    def writers_gone(self, ask):
        """Whether all writers have closed and everything was read; only if ask is set, it
        asks whether they are alive."""
        opened, died = self.load(self.OPENED), False
        for writer in self.writers():
            if writer and writer not in self.former:
                if not ask or self.segment.alive(writer):
                    return False
                died = True
        # A writer may have sent, or come, before the last one has closed.
        if self.load(self.TAIL) != self.pos or self.load(self.OPENED) != opened:
            return False
        if died:
            raise WriterDied("a writer has died")
        return opened != self.base


# The commands.


def follow(arguments):
    # The slot and the cursor are given back, if a signal ends the program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    segment = Attachment(os.fsencode(arguments.key))
    try:
        mode = Follower.NEWEST if arguments.start == "newest" else Follower.EVERY
        follower = Follower(segment, mode, arguments.start == "oldest")
        try:
            count = 0
            for lost, message in follower.messages(arguments.longest):
                if lost:
                    print(f"lost {lost}")
                print(escaped(message), flush=True)
                count += 1
                if count == arguments.count:
                    break
        finally:
            follower.close()
    finally:
        segment.detach()


def list_(_):
    directory = store_dir()
    for name in sorted(os.listdir(directory)):
        if NAME.fullmatch(name):
            line = describe(directory, name)
            if line is not None:
                print(line)


def read(arguments):
    sys.stdout.buffer.write(Reader(os.fsencode(arguments.key)).read())


def snapshot(arguments):
    reader = Reader(os.fsencode(arguments.key))
    for _ in range(arguments.times):
        sys.stdout.buffer.write(reader.snapshot())
        sys.stdout.buffer.flush()


def wait(arguments):
    print(Reader(os.fsencode(arguments.key), writable_header=True).wait(arguments.version, arguments.longest))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "list", help="the segments of the store",
        description="A line for each segment: name, status, size, version, number of live attachments, process that "
                    "holds the lock, attached processes (r: read-only), key; with tabs between.")
    command.set_defaults(run=list_)

    command = commands.add_parser(
        "read", help="the data as they stand",
        description="Writes the data as they stand, which may be half-written. Maps the file read-only, and takes no slot: "
                    "it does not keep the segment alive.")
    command.add_argument("key")
    command.set_defaults(run=read)

    command = commands.add_parser(
        "snapshot", help="the data as they were at one moment",
        description="Writes the data as they were at one moment. Maps the file "
                    f"read-only, takes no slot and no lock. Status {EXIT_ABANDONED}: the last writer died holding the lock.")
    command.add_argument("key")
    command.add_argument("times", type=int, nargs="?", default=1, help="how many, one after the other")
    command.set_defaults(run=snapshot)

    command = commands.add_parser(
        "wait", help="wait for a change",
        description="Waits until the version is another, and writes it. Maps the header writable, to arm the event; if it "
                    "may not, or if this is not Linux, it looks 500 times a second. Takes no slot. "
                    f"Status {EXIT_NONE}: every process that was attached has exited.")
    command.add_argument("key")
    command.add_argument("version", type=int)
    command.add_argument("longest", type=float, nargs="?", default=1.0, help="how many seconds to sleep without a look")
    command.set_defaults(run=wait)

    command = commands.add_parser(
        "follow", help="the messages of a stream",
        description="Writes each message on a line, and before it 'lost N' if messages were lost, until all writers have "
                    "closed. Takes a slot and a cursor: writers wait for this program, except with newest. "
                    f"Status {EXIT_ABANDONED}: a writer has died.")
    command.add_argument("key")
    command.add_argument("start", choices=["oldest", "now", "newest"], nargs="?", default="now",
                         help="where to begin; newest: from now on, and only the newest message each time")
    command.add_argument("longest", type=float, nargs="?", default=1.0,
                         help="how many seconds to sleep without a look whether writers are alive")
    command.add_argument("--count", type=int, help="end after so many messages")
    command.set_defaults(run=follow)

    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (NoSegment, Abandoned, WriterDied, Refused, OSError) as problem:
        print(f"{arguments.command}: {problem}", file=sys.stderr)
        sys.exit(EXIT_NONE if isinstance(problem, NoSegment)
                 else EXIT_ABANDONED if isinstance(problem, (Abandoned, WriterDied)) else 1)


if __name__ == "__main__":
    main()
