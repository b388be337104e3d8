"""Large values in shared memory: pickle 5 with its buffers out of band, written once, read where they lie.

Whoever sends owns a pool of segments (memfds: no name, gone with their last owner) and writes pickle and buffers into one. The reader
maps it and unpickles without a copy. A segment is used again only when the reader could give back every view of it: fresh pages cost
more than the copy, but an array that somebody has kept must never change.

Each reading maps anew and privately, so that what the reader changes is its own: a unit may come again, an application may fork.

A worker opens the parent's segments through ``/proc/PID/fd``, checked by inode; the parent is handed a worker's by the socket, because a
finished result has to survive its worker. Where either is impossible, large values go by the socket as before.
"""

from __future__ import annotations

import _pickle
import mmap
import os
from _thread import RLock
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGE_BYTES = 64 << 10  # what is larger goes this way
MOST_FREE_BYTES = 256 << 20  # that a pool keeps for the next value
ALIGNMENT = 64  # of each buffer in its segment: what numpy and its vector code like
MOST_BACK_BYTES = 4 << 20  # a larger segment is not left for whoever writes next to take back
MOST_BACK = 16  # segments that are left so
POSSIBLE = hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


class Segment:
    """One piece of shared memory, as its owner holds it."""

    __slots__ = ("fd", "inode", "kept", "number", "size", "turn", "view")

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.turn = 0  # how often it was lent
        self.kept = False  # a reader still has views of it: it must not be written again
        self.fd = os.memfd_create("workq-segment", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size)
            self.inode = os.fstat(self.fd).st_ino
            self.view = memoryview(mmap.mmap(self.fd, size))
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """Give it back; who has it mapped keeps what it has."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.view = memoryview(b"")


class Pool:
    """The segments of one owner. Any thread; the lock is the process's own."""

    def __init__(self) -> None:
        self._lock = RLock()  # a signal handler may come here while its own thread is here
        self._back: deque[tuple[Segment, int]] = deque()  # given back without the lock, and for which turn
        self._free: list[Segment] = []  # by size
        self._lent: dict[int, Segment] = {}
        self._free_bytes = 0
        self._next = 0
        self._closed = False

    def write(self, pieces: list[Any]) -> tuple[Segment, list[int]]:
        """Copy pieces of bytes into a segment; return it and their lengths. Raises OSError where there is no memory or descriptor."""
        lengths = [piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in pieces]
        segment = self._take(max(ALIGNMENT, sum(map(aligned, lengths))))
        try:
            _copy(pieces, lengths, segment.view)
        except BaseException:
            segment.kept = True
            self.free(segment)
            raise
        return segment, lengths

    def _take(self, size: int) -> Segment:
        with self._lock:
            self._take_back()
            segment = self._take_free(size)
            if segment is None:
                segment = Segment(self._next + 1, size)
                self._next += 1
            segment.turn += 1
            self._lent[segment.number] = segment
            return segment

    def _take_free(self, size: int) -> Segment | None:
        for index, segment in enumerate(self._free):
            if size <= segment.size <= 4 * size + LARGE_BYTES:
                del self._free[index]
                self._free_bytes -= segment.size
                return segment
        return None

    def give_back(self, segment: Segment, turn: int) -> bool:
        """Leave a lent segment for whoever writes next, in one step; False where it is too large for that, or there are too many."""
        if segment.size > MOST_BACK_BYTES or len(self._back) >= MOST_BACK or self._closed:
            return False
        self._back.append((segment, turn))
        return True

    def _take_back(self) -> None:
        while self._back:
            segment, turn = self._back.popleft()
            if segment.turn == turn:  # else it was given back twice, and is lent again
                self.free(segment)

    def keep(self, number: int) -> None:
        """A reader has kept views of a segment that is lent."""
        with self._lock:
            if number in self._lent:
                self._lent[number].kept = True

    def free_number(self, number: int) -> None:
        """Take a lent segment back, by its number."""
        segment = self._lent.get(number)
        if segment is not None:
            self.free(segment)

    def free(self, segment: Segment) -> None:
        """Take a segment back: no reader has a view of it any more."""
        with self._lock:
            if self._lent.pop(segment.number, None) is None:
                return
            if self._closed or segment.kept or segment.size > MOST_FREE_BYTES:
                segment.close()
                return
            self._free.append(segment)
            self._free.sort(key=_size)
            self._free_bytes += segment.size
            self._keep_few()

    def _keep_few(self) -> None:
        while self._free_bytes > MOST_FREE_BYTES:
            oldest = self._free.pop(0)
            self._free_bytes -= oldest.size
            oldest.close()

    def close(self) -> None:
        """Give back what is free; what is lent is closed when it comes back."""
        with self._lock:
            self._closed = True
            self._take_back()
            _close_all(self._free)


def _close_all(segments: list[Segment]) -> None:
    while segments:
        segments.pop().close()


def _copy(pieces: list[Any], lengths: list[int], view: memoryview) -> None:
    at = 0
    for piece, length in zip(pieces, lengths, strict=True):
        view[at : at + length] = piece
        at += aligned(length)


class Reading:
    """A segment that is being read: the mapping, and the views of it that were handed out."""

    __slots__ = ("_mapping", "_views", "number")

    def __init__(self, number: int, mapping: mmap.mmap, lengths: list[int]) -> None:
        self.number = number
        self._mapping = mapping
        whole = memoryview(mapping)
        self._views = [whole]
        at = 0
        for length in lengths:
            self._views.append(whole[at : at + length])
            at += aligned(length)

    def load(self) -> Any:
        """Unpickle: the first piece is the pickle, the others are its buffers."""
        pickled, *buffers = self.pieces()
        return _pickle.loads(pickled, buffers=buffers)

    def pieces(self) -> list[memoryview]:
        """Return the pickle and its buffers, where they lie."""
        return self._views[1:]

    def over(self) -> bool:
        """Give the mapping back; False where somebody still has a view of it (only the mapping knows). May be asked again."""
        try:
            while self._views:
                self._views[-1].release()
                self._views.pop()
            self._mapping.close()
        except BufferError:
            return False
        return True


def map_private(fd: int, lengths: list[int]) -> mmap.mmap:
    """Map a segment so that what is changed here is seen by nobody else."""
    size = max(ALIGNMENT, sum(map(aligned, lengths)))
    return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def dump(value: object) -> list[Any]:
    """Pickle a value: the pickle, then its buffers as flat views. Buffers that are not contiguous stay in the pickle."""
    buffers: list[Any] = []
    pickled = _pickle.dumps(value, 5, buffer_callback=lambda buffer: _out_of_band(buffer, buffers))
    return [pickled, *buffers]


def _out_of_band(buffer: Any, buffers: list[Any]) -> bool:
    """Keep a buffer out of the pickle, if it is worth it (pickle asks: a true answer keeps it in)."""
    try:
        raw = buffer.raw()
    except BufferError:
        return True
    if raw.nbytes < 4096:
        return True
    buffers.append(raw)
    return False


def total_bytes(pieces: list[Any]) -> int:
    """Return how many bytes the pieces of a value have."""
    return sum(piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in pieces)


def aligned(length: int) -> int:
    """Return a length rounded up, so that the next piece begins where vector code likes it."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def map_of(pid: int, fd: int, inode: int, lengths: list[int]) -> mmap.mmap:
    """Map another process's segment; OSError where that is not allowed, or it is no longer what it was."""
    ours = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(ours).st_ino != inode:
            raise FileNotFoundError(f"segment {fd} of process {pid} is gone")
        return map_private(ours, lengths)
    finally:
        os.close(ours)


def copy_out(segment: Segment, lengths: list[int]) -> list[bytes]:
    """Return the pieces of a segment, copied: for a worker that cannot map it."""
    pieces, at = [], 0
    for length in lengths:
        pieces.append(bytes(segment.view[at : at + length]))
        at += aligned(length)
    return pieces


def _size(segment: Segment) -> int:
    return segment.size
