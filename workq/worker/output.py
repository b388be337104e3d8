"""What a unit writes: to Python's streams, and to descriptors 1 and 2 (C code, subprocesses), kept apart for each unit.

* ``sys.stdout`` is one permanent stream that keeps text in a list (0.5 us a print); ``flush()`` sends it down to descriptor 1, so
  that it is in order with what a subprocess writes next.
* ``sys.stderr`` writes straight to descriptor 2: it is there after a crash.
* Descriptors 1 and 2 are pipes of the worker's own. It reads them itself: at a unit's end (`take`), when the unit asks for it
  (`flush`), and by the control thread while a long unit runs (`drain`), so that no writer waits for ever on a full pipe. The last
  bytes stay in the pipe meanwhile: if the worker dies the parent finds them there.

``pending`` holds, in order, text of stdout (str) and marks of what went to the pipes: +n bytes to stderr, -n to stdout, 0 for bytes
that were drained meanwhile. By the marks the pipes' bytes get back their places among the text.

Owners: units' threads append to ``pending``; everything else is under ``_lock``. Text and bytes appear at the end they were
written at: bytes of a child that outlives its unit belong to whichever unit is taken next.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
from _codecs import utf_8_decode
from _thread import RLock

from workq.worker.streams import KeptStream, TextStream, encoded, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PIECE_BYTES = 1 << 16
DRAIN_BYTES = 4 << 20  # at most this at a time, so that a unit that never stops writing does not keep its reader
CUT = "[workq: output cut, {} bytes dropped]\n"


class Output:
    """A worker's streams and the reading ends of its pipes.

    Attributes:
        pending: What Python code has written and nobody has taken; a list that never changes its identity, to be tested for truth.
        discard: True to drop all that is written from now on.
    """

    def __init__(self, output_fd: int, error_fd: int, limit_bytes: int) -> None:
        self.pending: list[Any] = []
        self.discard = False
        self.stdout = KeptStream(self, 1, "<stdout>")
        self.stderr = TextStream(self, 2, "<stderr>")
        self.room = limit_bytes  # what is left of the limit; units' threads and readers change it without a lock: it is a bound, no account
        self.dropped_bytes = 0
        self.straight = False  # True in a child that a unit has forked: nobody takes what it keeps
        self._limit_bytes = limit_bytes
        self._lock = RLock()
        self._pipes = {number: Pipe(fd, number) for number, fd in ((1, output_fd), (2, error_fd))}
        self._poll = self.new_poll()

    # -- set-up

    def install(self) -> None:
        """Become the process's streams."""
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[assignment,misc]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[assignment,misc]
        for pipe in self._pipes.values():
            pipe.remember_writer()
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        """A unit has forked: what was kept is the worker's to tell; from here on all goes to the descriptors at once."""
        self._lock = RLock()
        self.pending.clear()
        self.straight = True
        self.room = -1  # sends each write the slow way, where `straight` is looked at

    def new_poll(self) -> select.poll:
        """Return a poll object for both pipes. Each thread needs its own: they cannot be shared."""
        poll = select.poll()
        for pipe in self._pipes.values():
            if pipe.alive:
                poll.register(pipe.fd, select.POLLIN)
        return poll

    # -- taking what was written

    def take(self, look_at_descriptors: bool) -> list[tuple[int, str]]:
        """End a unit: return what it wrote, as (1 or 2, text), in order as far as that is known.

        Args:
            look_at_descriptors: Also look into the pipes. They are looked into anyway if Python code wrote to them.
        """
        self.restore_streams()
        if not (look_at_descriptors or self.pending or self.dropped_bytes) and self.room == self._limit_bytes:
            return []  # it has written nothing: most units
        with self._lock:
            chunks = self._collect(look_at_descriptors and self.waiting(), final=True)
            if self.dropped_bytes:
                chunks = list(joined([*chunks, (1, self._cut_line(chunks))]))
            self.room, self.dropped_bytes = self._limit_bytes, 0
            if look_at_descriptors:
                for pipe in self._pipes.values():
                    pipe.put_writer_back()
        return [] if self.discard else chunks

    def flush(self) -> list[tuple[int, str]]:
        """Return what the unit has written so far. What was returned still counts for its limit."""
        with self._lock:
            chunks = self._collect(True, final=False)
        return [] if self.discard else chunks

    def waiting(self) -> bool:
        """Whether there is something in the pipes (0.7 us). For the main thread only."""
        ready = self._poll.poll(0)
        if not ready:
            return False
        if any(not event & select.POLLIN for _, event in ready):  # closed by a unit: it would be ready for ever
            self._poll = self.find_dead(ready)
        return any(event & select.POLLIN for _, event in ready)

    def find_dead(self, ready: Iterable[tuple[int, int]]) -> select.poll:
        """Give up the pipes that cannot be polled any more, and return a poll object for the rest."""
        for fd, event in ready:
            for pipe in self._pipes.values():
                if pipe.fd == fd and not event & select.POLLIN:
                    pipe.alive = False
        return self.new_poll()

    def drain(self) -> int:
        """Take from the pipes that are well filled, for later, and return how many bytes that were. For the control thread."""
        with self._lock:
            count = sum(self._keep_all(pipe, pipe.read_surplus()) for pipe in self._pipes.values())
            if count:
                self.pending.append(0)  # so that the unit's end looks here
        return count

    def _collect(self, look: bool, final: bool) -> list[tuple[int, str]]:
        """Take ``pending`` and, if asked or if a mark says so, the pipes. Under the lock."""
        count = len(self.pending)  # a thread of the unit may append meanwhile: that stays
        parts = self.pending[:count]
        del self.pending[:count]
        if look or any(type(part) is not str for part in parts):
            self._read_pipes()
            return list(joined(arranged(parts, self._pipes[1].taken(final), self._pipes[2].taken(final))))
        return [(1, "".join(parts))] if parts else []

    def _read_pipes(self) -> int:
        return sum(self._keep_all(pipe, pipe.read()) for pipe in self._pipes.values())

    def _keep_all(self, pipe: Pipe, pieces: Iterable[bytes]) -> int:
        count = 0
        for piece in pieces:
            count += len(piece)
            self._keep(pipe, piece)
        return count

    def _keep(self, pipe: Pipe, piece: bytes) -> None:
        room = max(self.room, 0)
        pipe.kept += piece[:room]
        self.room = room - min(room, len(piece))
        self.dropped_bytes += max(0, len(piece) - room)

    def _cut_line(self, chunks: list[tuple[int, str]]) -> str:
        broken = bool(chunks) and not chunks[-1][1].endswith("\n")
        return "\n" * broken + CUT.format(self.dropped_bytes)

    # -- what units may have done to the streams

    def restore_streams(self) -> None:
        """Put our streams back where a unit has left others in their place; what those still hold is written first."""
        if getattr(sys, "stdout", None) is not self.stdout:
            flush_quietly(getattr(sys, "stdout", None))
            sys.stdout = self.stdout
        if getattr(sys, "stderr", None) is not self.stderr:
            flush_quietly(getattr(sys, "stderr", None))
            sys.stderr = self.stderr

    # -- writing, for the streams

    def add_text(self, text: str) -> None:
        """Keep text of stdout, as far as the limit allows; the slow half of its ``write``."""
        if self.straight:
            write_all(1, encoded(text))
            return
        room = max(self.room, 0)
        self.room = room - min(room, len(text))
        if room:
            self.pending.append(text[:room])
        if len(text) > room:
            self.dropped_bytes += len(encoded(text[room:]))

    def add_bytes(self, number: int, data: bytes) -> None:
        """Write to a descriptor, and mark it."""
        if not data:
            return
        if number == 1:
            self.send_text_down()
        write_all(number, data)
        if not self.straight:
            self.pending.append(len(data) if number == 2 else -len(data))

    def send_text_down(self) -> None:
        """Move the text of stdout that is still here to descriptor 1: what is written next by others comes after it."""
        if self.straight:
            return
        with self._lock:
            count = len(self.pending)  # another thread may append meanwhile: that stays
            texts = {place: encoded(part) for place, part in enumerate(self.pending[:count]) if type(part) is str}
            for place, data in texts.items():
                self.pending[place] = -len(data)
        data = b"".join(texts.values())
        write_all(1, data)  # outside of the lock: the control thread has to empty a pipe that is full
        self.room += len(data)  # it is counted again when it is read


class Pipe:
    """The reading end of one of the worker's own descriptors. Under the lock of its `Output`."""

    def __init__(self, fd: int, number: int) -> None:
        self.fd = fd
        self.number = number
        self.alive = True
        self.kept = bytearray()
        self._identity = identity(fd)
        self._writer = -1
        self._well_filled_bytes, self._last_bytes = bounds(fd)
        os.set_blocking(fd, False)

    def remember_writer(self) -> None:
        """Keep a second descriptor of the writing end, to mend what a unit does to the first."""
        if identity(self.number) == self._identity:
            self._writer = os.dup(self.number)

    def put_writer_back(self) -> None:
        """Make descriptor 1 or 2 the pipe again where a unit has closed or replaced it (0.6 us if it has not)."""
        if self._writer >= 0 and identity(self.number) != self._identity and identity(self._writer) == self._identity:
            os.dup2(self._writer, self.number)

    def read(self) -> Iterable[bytes]:
        """Yield what is there. A descriptor that a unit has closed, or that is something else by now, is left alone."""
        if not self.alive or identity(self.fd) != self._identity:
            self.alive = False
            return
        yield from self._read(DRAIN_BYTES)

    def read_surplus(self) -> Iterable[bytes]:
        """Yield what keeps writers from going on: nothing while there is room enough, and never the last bytes."""
        if self.alive:
            there = filled_bytes(self.fd)
            if there >= self._well_filled_bytes and identity(self.fd) == self._identity:
                yield from self._read(there - self._last_bytes)

    def _read(self, most: int) -> Iterable[bytes]:
        while most > 0:
            wanted = min(PIECE_BYTES, most)
            try:
                piece = os.read(self.fd, wanted)
            except BlockingIOError:
                return
            except OSError:
                self.alive = False
                return
            if not piece:
                return
            yield piece
            most -= len(piece)
            if len(piece) < wanted:
                return

    def taken(self, final: bool) -> bytes:
        """Return and forget what is kept; the beginning of a character that is not whole stays unless this is the end."""
        whole = len(self.kept) if final else utf_8_decode(self.kept, "backslashreplace", False)[1]
        data = bytes(self.kept[:whole])
        del self.kept[:whole]
        return data


def bounds(fd: int) -> tuple[int, int]:
    """Return how many bytes make a pipe well filled, and how many stay in it then. Small writes take more room than their bytes."""
    try:
        size = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except (AttributeError, OSError):  # not Linux
        size = 16 << 10
    return size // 4, size // 16


def filled_bytes(fd: int) -> int:
    """Return how many bytes are in a pipe; 0 where that cannot be told."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
    except OSError:
        return 0


def identity(fd: int) -> tuple[int, int] | None:
    """Return what tells one pipe from another, or None for a closed descriptor."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# -- putting things in order -----------------------------------------------------------------------------------------


def arranged(parts: list[Any], out: bytes, err: bytes) -> Iterable[tuple[int, str]]:
    """Yield text and the pipes' bytes in order.

    Where a pipe holds exactly what the marks say, each mark takes its share. Else something besides Python has written to it: then
    all of it stands at the first mark, or, with no mark, before the text (for stdout) or after it (for stderr).
    """
    places: dict[int, list[int]] = {1: [], 2: []}
    for place, part in enumerate(parts):
        if type(part) is int and part:
            places[2 if part > 0 else 1].append(place)
    out_shares = shares(out, parts, places[1])
    err_shares = shares(err, parts, places[2])
    if -1 in out_shares:
        yield 1, decoded(out_shares[-1])
    for place, part in enumerate(parts):
        if type(part) is str:
            yield 1, part
        elif place in out_shares:
            yield 1, decoded(out_shares[place])
        elif place in err_shares:
            yield 2, decoded(err_shares[place])
    if -1 in err_shares:
        yield 2, decoded(err_shares[-1])


def shares(data: bytes, parts: list[Any], places: list[int]) -> dict[int, bytes]:
    """Return which bytes of a pipe stand at which mark; place -1 is for a pipe without marks."""
    if not data:
        return {}
    if len(data) != sum(abs(parts[place]) for place in places):
        return {places[0] if places else -1: data}
    found = {}
    start = 0
    for place in places:
        end = start + abs(parts[place])
        found[place] = data[start:end]
        start = end
    return found


def joined(chunks: Iterable[tuple[int, str]]) -> Iterable[tuple[int, str]]:
    """Join neighbours of the same stream; leave out what is empty."""
    number, texts = 0, [""]
    for each, text in chunks:
        if each != number:
            if any(texts):
                yield number, "".join(texts)
            number, texts = each, []
        texts.append(text)
    if any(texts):
        yield number, "".join(texts)


def decoded(data: bytes) -> str:
    """Return bytes as text; what is no UTF-8 as backslash escapes."""
    return data.decode("utf-8", "backslashreplace")


def flush_quietly(stream: Any) -> None:
    """Flush a stream of a unit's own, whatever that does."""
    try:
        stream.flush()
    except BaseException:  # foreign code, outside of its unit: nobody is left to hear of it
        return
