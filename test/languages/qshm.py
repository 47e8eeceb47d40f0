#!/usr/bin/env python3
"""Looks at memory that processes share by qshm, without qshm: it does as
shm/FORMAT.md says, with Python's standard library only.

It takes no slot, for Python has no compare-and-swap to take one with. So nobody
counts it, and it keeps nothing alive: a segment ends with its last attachment as
if nobody were reading. What has been mapped stays readable all the same, and
says of itself when it has ended.
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

# The header, up to the reference count.
HEADER = struct.Struct("=8sIIIIQQqIIII32s32sII")
MAGIC = b"\0qshm\r\n\x1a"
MIN_HEADER, MAX_HEADER = 4096, 2 << 20
STATE, WORD, BELL, KEY, SLOTS = 128, 192, 256, 320, 576
KEY_SIZE = 256
MAKING, LIVE, DEAD, REMOVED = range(4)

SLOT = struct.Struct("=QQ")
ABANDONED = 1 << 29
ARMED = 1

EXIT_NONE, EXIT_ABANDONED = 3, 4


class NoSegment(Exception):
    """Nothing is under the key, or what was has ended."""


class Abandoned(Exception):
    """The last writer died inside the lock."""


class Refused(Exception):
    """The file is not one that this program knows."""


# The store.


def store_dir():
    """The directory. It is not made: who only attaches finds nothing in a new one."""
    own = os.environ.get("QSHM_DIR")
    temp = os.environ.get("TMPDIR") or "/tmp"
    for directory in [own] if own else [f"{parent}/qshm-{os.geteuid()}" for parent in ("/dev/shm", temp)]:
        try:
            info = os.lstat(directory)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(info.st_mode):
            raise Refused(f"{directory} is not a directory")
        if not own and (info.st_uid != os.geteuid() or info.st_mode & 0o077):
            raise Refused(f"{directory} is somebody else's, or open to others")
        return directory
    raise NoSegment("there is no store")


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
    return f"{prefix}-{tail}" if prefix else tail


NAME = re.compile(r"([a-z0-9][a-z0-9_]{0,23}-)?[0-9a-v]{32}")


def open_as_it_is(path, flags):
    """No symbolic link is followed, and no pipe waited for."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused(f"{path} is not a file")
    return fd


def alive(directory, token):
    """Whether the process of a token lives: asked by a shared lock."""
    try:
        fd = os.open(f"{directory}/.live.{token:016x}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # what may not be asked counts as alive
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


# A segment, as its file says.


class Header:
    """What the beginning of a file says; Refused if it is no segment's."""

    def __init__(self, page, file_size):
        self.half_made = file_size != 1 and not page.strip(b"\0")
        self.state, self.size, self.key, self.word = MAKING, 0, b"", 0
        if self.half_made:
            return
        if len(page) < MIN_HEADER:
            raise Refused("it is too short")
        (magic, order, version, self.data_off, self.slots, _, self.size, _, _, _, key_len, _, self.hash, _,
         self.state, _) = HEADER.unpack_from(page)
        if magic != MAGIC or order != 0x01020304 or version != 1:
            raise Refused("it was not made by qshm of this version and byte order")
        if (self.data_off < MIN_HEADER or self.data_off > min(MAX_HEADER, file_size) or self.data_off % mmap.PAGESIZE
                or self.slots == 0 or SLOTS + self.slots * SLOT.size > self.data_off
                or self.size == 0 or self.data_off + self.size > file_size):
            if self.state != MAKING:
                raise Refused("its header contradicts itself, or it is truncated")
            self.half_made, self.size = True, 0
            return
        self.key = page[KEY:KEY + min(key_len, KEY_SIZE)]
        self.word = struct.unpack_from("=Q", page, WORD)[0]


def living(directory, page, slots):
    """The attachments that count: slot, generation, process, whether read-only."""
    known, found = {}, []
    for i in range(slots):
        token, meta = SLOT.unpack_from(page, SLOTS + i * SLOT.size)
        if token == 0:
            continue
        if token not in known:
            known[token] = alive(directory, token)
        if known[token]:
            found.append((i, meta >> 32 & 0x1FFF, meta & 0xFFFFFFFF, bool(meta >> 48 & 1)))
    return found


def owner(word):
    """Slot and generation of who holds the lock."""
    return ((word & 0xFFFF) - 1, word >> 16 & 0x1FFF) if word & 0x1FFFFFFF else None


def version(word):
    return word >> 32


def escaped(key):
    return "".join(chr(c) if 0x21 <= c <= 0x7E and c != 0x5C else f"\\x{c:02x}" for c in key)


def describe(directory, name):
    """One line of the list, or None if the file is no segment."""
    try:
        fd = open_as_it_is(os.path.join(directory, name), os.O_RDONLY)
    except PermissionError:
        return f"{name}\tunknown\t0\t0\t0\t-\t-\t"
    except (OSError, Refused):
        return None
    try:
        page = os.pread(fd, MIN_HEADER, 0)
        size = os.fstat(fd).st_size  # after the page: a header that says the file is complete is right from then on
        header = Header(page, size)
        who = []
        if not header.half_made:
            page = os.pread(fd, header.data_off, 0)
            header = Header(page, size)
            who = living(directory, page, header.slots)
    except Refused:
        return None
    finally:
        os.close(fd)
    status = "live"
    if not who or header.state in (MAKING, DEAD):
        status = "dead"
    elif header.state == REMOVED:
        status = "removed"
    held = next((str(pid) for i, gen, pid, _ in who if (i, gen) == owner(header.word)), "-")
    pids = ",".join(f"{pid}r" if read_only else str(pid) for _, _, pid, read_only in who) or "-"
    return f"{name}\t{status}\t{header.size}\t{version(header.word)}\t{len(who)}\t{held}\t{pids}\t{escaped(header.key)}"


# A segment, as it is mapped.


class Reader:
    """A segment that is mapped, without a slot in it."""

    def __init__(self, key, writable_header=False):
        self.directory = store_dir()
        path = os.path.join(self.directory, name_of(key))
        self.writable = writable_header
        try:
            try:
                fd = open_as_it_is(path, os.O_RDWR if writable_header else os.O_RDONLY)
            except PermissionError:
                self.writable = False  # then there is no arming of the bell
                fd = open_as_it_is(path, os.O_RDONLY)
        except FileNotFoundError:
            raise NoSegment(f"no segment in {self.directory}") from None
        try:
            self.header = Header(os.pread(fd, MIN_HEADER, 0), os.fstat(fd).st_size)
            if self.header.half_made:
                raise NoSegment("nobody has finished making it")
            if self.header.hash != hashlib.sha256(key).digest():
                raise Refused("it was made for another key of the same name")
            self.head = mmap.mmap(fd, self.header.data_off, mmap.MAP_SHARED,
                                  mmap.PROT_READ | (mmap.PROT_WRITE if self.writable else 0))
            self.data = mmap.mmap(fd, self.header.data_off + self.header.size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        if self.load32(STATE) == REMOVED or self.ended():
            raise NoSegment(f"nobody who lives is attached in {self.directory}")

    # In a native format these are one load each, as the format asks for.
    def load32(self, offset):
        return struct.unpack_from("I", self.head, offset)[0]

    def load64(self, offset):
        return struct.unpack_from("Q", self.head, offset)[0]

    def word(self):
        return self.load64(WORD)

    def ended(self):
        """Whether nobody is left who could change anything."""
        return self.load32(STATE) in (MAKING, DEAD) or not living(self.directory, self.head, self.header.slots)

    def read(self):
        """The data as they stand, which may be half-written."""
        return self.data[self.header.data_off:]

    def snapshot(self):
        """The data as they were at one moment, and their version."""
        held_since, last = 0.0, None
        while True:
            word = self.word()
            if word & ABANDONED:
                raise Abandoned("the last writer died inside the lock")
            if owner(word) is None:
                copy = self.read()
                fence()
                now = self.word()
                if owner(now) is None and version(now) == version(word):
                    return copy, version(word)
                continue
            if word != last:
                held_since, last = time.monotonic(), word
            elif time.monotonic() - held_since > 0.025:
                # Nobody need be there to take the lock over, and mark the word.
                if owner(word) not in [(i, gen) for i, gen, _, _ in living(self.directory, self.head, self.header.slots)]:
                    if self.word() == word:
                        raise Abandoned("the owner of the lock has died")
                last = None
            time.sleep(0.0001)

    def wait(self, since, longest):
        """The version, once it is another than since; sleeps of longest seconds."""
        futex = Futex(self.head) if self.writable and Futex.number else None
        while True:
            bell = self.load32(BELL)
            if futex and not bell & ARMED:
                if futex.set_bits(BELL, ARMED):
                    continue
                futex = None  # a kernel, or an emulator, that does not know how
            # After arming: who moves the version from here on sees the bell armed.
            if version(self.word()) != since:
                return version(self.word())
            if futex:
                slept = futex.wait(BELL, bell, longest)
            else:
                time.sleep(0.002)
                slept = True
            if slept and self.ended():
                if version(self.word()) != since:
                    continue
                raise NoSegment("all who were attached have ended")


_fence = threading.Lock()
_fence.acquire()


def fence():
    """Keeps the loads before it before those after it: nothing moves down over the
    release of a lock, nothing up over the taking."""
    _fence.release()
    _fence.acquire()


class Futex:
    """futex(2) on words of a mapping that is writable.

    The kernel also does what Python cannot, change a word atomically:
    FUTEX_WAKE_OP, with nobody to wake.
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
        copy, at = reader.snapshot()
        sys.stdout.buffer.write(copy)
        sys.stdout.buffer.flush()
        print(at, file=sys.stderr)


def wait(arguments):
    print(Reader(os.fsencode(arguments.key), writable_header=True).wait(arguments.version, arguments.longest))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "list", help="the segments of the store",
        description="A line for each segment: name, status, size, version, number of living attachments, process that "
                    "holds the lock, processes that are attached (r: read-only), key; with tabs between.")
    command.set_defaults(run=list_)

    command = commands.add_parser(
        "read", help="the data as they stand",
        description="Writes the data as they stand, which may be half-written. Maps the file read-only, and takes no slot: "
                    "it does not keep the segment alive.")
    command.add_argument("key")
    command.set_defaults(run=read)

    command = commands.add_parser(
        "snapshot", help="the data as they were at one moment",
        description="Writes the data as they were at one moment, and their version to standard error. Maps the file "
                    f"read-only, takes no slot and no lock. Status {EXIT_ABANDONED}: the last writer died inside the lock.")
    command.add_argument("key")
    command.add_argument("times", type=int, nargs="?", default=1, help="how many, one after the other")
    command.set_defaults(run=snapshot)

    command = commands.add_parser(
        "wait", help="wait for a change",
        description="Waits until the version is another, and writes it. Maps the header writable, to arm the bell; if it "
                    "may not, or if this is not Linux, it looks 500 times a second. Takes no slot. "
                    f"Status {EXIT_NONE}: all who were attached have ended.")
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
