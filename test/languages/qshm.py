#!/usr/bin/env python3
"""Looks at memory that processes share by qshm, without qshm: this program follows
shm/FORMAT.md, with Python's standard library only.

It takes no slot, because Python has no compare-and-swap to take one with. So it
keeps nothing alive: a segment ends with its last attachment, whether or not this
program reads it. What is mapped stays readable all the same, and the slot locks tell when
the segment has ended.
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
import stat
import struct
import sys
import threading
import time

# The header, up to the size of the data.
HEADER = struct.Struct("=8sIIIIQqIIIIQ32s32xIIQ")
MAGIC = b"\0qshm\r\n\x1a"
MIN_HEADER, MAX_HEADER = 4096, 2 << 20
STATE, SIZE, WORD, EVENT, KEY, SLOTS = 128, 136, 192, 256, 320, 576
KEY_SIZE = 256
MAKING, LIVE, DEAD, REMOVED = range(4)
RECORD_LOCKS = 1

TAKEN, READ_ONLY = 1 << 32, 1 << 33  # in a slot
ABANDONED = 1 << 29  # in the lock word
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


F_OFD_GETLK = 36


def held(fd, first, count=1):
    """Whether a process holds the lock of one of the slots from first on."""
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, (1 << 40) + first, count, 0)
    try:
        return struct.unpack_from("h", fcntl.fcntl(fd, F_OFD_GETLK, lock))[0] != fcntl.F_UNLCK
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
        (magic, order, version, self.data_off, self.slots, _, _, _, _, kind, key_len, _, self.hash,
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

    WAIT, WAKE_OP = 0, 5  # not private: other processes wait too
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

    def set_bits(self, offset, bit):
        """Sets a bit atomically. Whether that worked."""
        operation = self.OP_OR << 28 | self.CMP_EQ << 24 | bit << 12
        return self._call(ctypes.addressof(self.own), self.WAKE_OP, 0, ctypes.c_ulong(0),
                          self.base + offset, operation) == 0


# The commands.


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

    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (NoSegment, Abandoned, Refused, OSError) as problem:
        print(f"{arguments.command}: {problem}", file=sys.stderr)
        sys.exit(EXIT_NONE if isinstance(problem, NoSegment) else EXIT_ABANDONED if isinstance(problem, Abandoned) else 1)


if __name__ == "__main__":
    main()
