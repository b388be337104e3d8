"""Free locks are taken without asking: the kernel's record locks on a page of the controller's, one byte and one flag for each name.

Whoever takes a byte holds the lock; the kernel gives it back when the process is gone, and to nobody else's child. The controller itself
takes the byte of a lock that it grants: then its table alone says whose turn it is.

The race that the flag settles: a worker has the byte, and another one asks the controller for it.
1. The controller raises the flag, *then* tries to take the byte.
2. A worker gives the byte back, *then* looks at the flag, and tells the controller where it is up. One that takes the byte looks at the
   flag too, and where it is up gives the byte back and asks the controller.
Either the controller gets the byte, or it will be told. The kernel's own lock around the bytes is the fence between the steps.

The page's memory is written by the controller alone. Which bytes a worker has is on its own board, so that its death leaves it to be read.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workq.transport.claims import Held

NAMES = 1024  # that can have a byte; further ones are always asked for
FLAGS_BYTES = NAMES * 8
HELD_AT = 32  # on a board: what its worker holds, in
HELD = 8  # entries of
HELD_WORDS = 3  # words: the byte and one more, the thread (0: the main one), since when in time.monotonic_ns()

_FLOCK = struct.Struct("hhqqi")


class Page:
    """Either side's view of the page. ``flags`` has one word for each byte: 1 where the controller is to be asked.

    Attributes:
        fd: Its descriptor. No other one may lead there in this process: whichever is closed first would give all bytes back.
    """

    __slots__ = ("_mapping", "fd", "flags", "inode")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self._mapping = mmap.mmap(fd, FLAGS_BYTES)
        self.flags = memoryview(self._mapping).cast("Q")

    @classmethod
    def create(cls) -> Page:
        """Make the page. Raises OSError where there is no memory, or no descriptor."""
        fd = os.memfd_create("workq-locks", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, FLAGS_BYTES)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def of(cls, pid: int, fd: int, inode: int) -> Page:
        """Open another process's page; OSError where that is not allowed, or it is no longer what it was."""
        ours = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            page = cls(ours)
            if page.inode != inode:
                raise FileNotFoundError(f"page {fd} of process {pid} is gone")
        except BaseException:
            os.close(ours)
            raise
        return page

    def take(self, byte: int) -> bool:
        """Take a byte, if it is free. A process that has it gets it again: whoever calls knows what he has."""
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def give(self, byte: int) -> None:
        """Give a byte back."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, byte)

    def holder(self, byte: int) -> int:
        """Return the process that has a byte; 0: none, or this one."""
        try:
            answer = fcntl.fcntl(self.fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0) + b"\0" * 4)
        except OSError:
            return 0
        kind, _, _, _, pid = _FLOCK.unpack_from(answer)
        return 0 if kind == fcntl.F_UNLCK else pid


def note_held(words: memoryview, byte: int, thread: int, now_ns: int) -> bool:
    """Note on a board that its worker has a byte; return False where no entry is left."""
    for at in range(HELD_AT, HELD_AT + HELD * HELD_WORDS, HELD_WORDS):
        if not words[at]:
            words[at + 1], words[at + 2] = thread, now_ns
            words[at] = byte + 1
            return True
    return False


def held_of(words: memoryview) -> dict[int, tuple[int, float]]:
    """Return the bytes that a board says its worker has: thread, and since when (time.monotonic())."""
    entries = [tuple(words[at : at + HELD_WORDS]) for at in range(HELD_AT, HELD_AT + HELD * HELD_WORDS, HELD_WORDS)]
    return {byte - 1: (thread, since_ns / 1e9) for byte, thread, since_ns in entries if byte}


class Thin:
    """A worker's way to locks that are free.

    ``bytes`` is filled by whoever is told by the controller; an entry of the board is the thread's that has taken the byte. The kernel
    gives a byte to all threads of a process: the one that has it, or tries to get it, stands in ``_takers``, from before it is tried for
    until after it was given back.
    """

    def __init__(self, page: Page, words: memoryview, main_thread: int) -> None:
        self.page = page
        self.bytes: dict[str, int] = {}
        self._words = words
        self._main_thread = main_thread
        self._takers: dict[str, Held] = {}

    def take(self, name: str, held: dict[tuple[str, int], Held], mine: Held, now_ns: int) -> bool:
        """Take a lock that is free, and nobody waits for, and put ``mine`` into ``held``; else return False."""
        if name not in self.bytes:
            return False
        lock = name, mine.thread
        try:
            if self._takers.setdefault(name, mine) is mine and self._has_taken(self.bytes[name], mine.thread, now_ns):
                held[lock] = mine
        finally:
            if held.get(lock) is not mine:  # it is not free, an entry was missing, or the flag is up: we ask; or an exception has struck
                self.give(name, held, mine)
        return held.get(lock) is mine

    def _has_taken(self, byte: int, thread: int, now_ns: int) -> bool:
        number = 0 if thread == self._main_thread else thread
        return self.page.take(byte) and not self.page.flags[byte] and note_held(self._words, byte, number, now_ns)

    def give(self, name: str, held: dict[tuple[str, int], Held], mine: Held) -> bool:
        """Give a lock back; return whether the controller has to be told. Again, where an exception has struck in the middle of it.

        From the moment when the byte is given back another thread of this process may be granted the lock, and note that in ``held``.
        But none takes the byte before it has stopped being ours in ``_takers``, last of all: else it could be given back twice.
        """
        byte, words = self.bytes[name], self._words
        if self._takers.get(name) is mine:
            for at in range(HELD_AT, HELD_AT + HELD * HELD_WORDS, HELD_WORDS):
                if words[at] == byte + 1:
                    words[at] = 0
            self.page.give(byte)
        if held.get((name, mine.thread)) is mine:  # nobody but this thread makes or deletes its entry
            del held[name, mine.thread]
        if self._takers.get(name) is mine:
            del self._takers[name]
        return bool(self.page.flags[byte])
