"""A value that many units are given, sent once: the parent's handle, and what a worker makes of it.

The handle's value lies in a segment. Its pickle says only where; whoever unpickles it in a worker gets the value itself, mapped
read-only and remembered, so that the next unit there costs nothing.
"""

from __future__ import annotations

import _pickle
import mmap
import os
from _thread import _local

from workq.transport import segments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_REMEMBERED = 64  # values in one worker; then the one that was used longest ago is forgotten

exist = False  # whether any handle was ever made: spares the hot path a look
_pool = segments.Pool()


class _Pickled(_local):
    """The handles that this thread has pickled since it was last asked: a unit must keep them until it has ended."""

    def __init__(self) -> None:
        self.handles: list[Shared] = []


_pickled = _Pickled()


class Shared:
    """The handle of a value that was shared; see :func:`workq.shared`. Its segment lives as long as it, and as long as units use it."""

    __slots__ = ("_lengths", "_owner", "_pickle", "_segment", "__weakref__")

    def __init__(self, value: object) -> None:
        global exist
        pieces = segments.dump(value)
        self._owner = os.getpid()
        self._segment: segments.Segment | None = None
        self._pickle: bytes | None = None
        if segments.POSSIBLE:
            self._segment, self._lengths = _pool.write(pieces)
        else:
            self._pickle = _pickle.dumps(value, 5)
        exist = True

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes, once for all workers."""
        return len(self._pickle) if self._pickle is not None else sum(self._lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._segment is None:
            return _pickle.loads, (self._pickle,)
        if os.getpid() == self._owner:
            _pickled.handles.append(self)
        return load, (self._owner, self._segment.number, self._segment.fd, self._segment.inode, self._lengths)

    def __repr__(self) -> str:
        return f"<shared value of {self.size_bytes:,} bytes>"

    def __del__(self) -> None:
        segment = getattr(self, "_segment", None)
        if segment is not None and os.getpid() == self._owner:
            segment.close()  # never used again: workers remember what they read there


def take_pickled() -> list[Shared]:
    """Return the handles that this thread has pickled since the last call."""
    if not _pickled.handles:
        return []
    handles, _pickled.handles = _pickled.handles, []
    return handles


_remembered: dict[tuple[int, int], Any] = {}


def load(owner: int, number: int, fd: int, inode: int, lengths: list[int]) -> Any:
    """Return a shared value: in a worker, mapped read-only at the first time and remembered."""
    key = owner, inode
    if key in _remembered:
        value = _remembered[key] = _remembered.pop(key)  # the last used is the last forgotten
        return value
    size = max(segments.ALIGNMENT, sum(map(segments.aligned, lengths)))
    ours = os.open(f"/proc/{owner}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(ours).st_ino != inode:
            raise FileNotFoundError("the shared value is gone: its handle was dropped")
        mapping = mmap.mmap(ours, size, access=mmap.ACCESS_READ)
    finally:
        os.close(ours)
    value = segments.Reading(number, mapping, lengths).load()
    _remembered[key] = value
    while len(_remembered) > MOST_REMEMBERED:
        del _remembered[next(iter(_remembered))]
    return value
