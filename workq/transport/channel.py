"""Frames on the private socket of one worker, both sides.

Down (parent to worker): 8 bytes, kind in the top byte and length below, then the payload. Up: a kind byte, and for all but the
bell 8 bytes of length and the payload. The socket carries what is too large for the ring, what must arrive while a unit still
runs (log records, output, requests of nested queues) and the bell of a lone waiter; ordinary results go through the board.

A signal handler of the application may raise between any two bytecodes of its main thread, and that thread reads and writes here.
So the parent's side lets no bytecode stand between a system call and the note of what it did: ``deque.extend(map(call, …))`` is one
call of C, in which no handler runs.
"""

from __future__ import annotations

import os
import struct
from _socket import CMSG_SPACE, MSG_DONTWAIT, SCM_CREDENTIALS, SCM_RIGHTS, SO_PASSCRED, SO_RCVTIMEO, SOL_SOCKET
from _thread import RLock, allocate_lock
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is too dear for the launcher
    from _socket import socket
    from collections.abc import Callable
    from typing import Any

DOWN_UNITS, DOWN_CONFIG, DOWN_REPLY, DOWN_LEAVE, DOWN_TEAR_DOWN = range(5)
UP_BELL, UP_READY, UP_RESULT, UP_LOG, UP_OUTPUT, UP_REQUEST, UP_SEGMENT, UP_KEPT, UP_LOCK, UP_SET_UP, UP_TORE_DOWN = range(11)
SET_UP_WELL, SET_UP_FAILED, SET_UP_CUT_SHORT = range(3)  # how a set-up ended

DOWN_HEAD = struct.Struct("=Q")
UP_HEAD = struct.Struct("=BQ")
KIND_SHIFT = 56
LENGTH_MASK = (1 << KIND_SHIFT) - 1
BELL = b"\0"

_INBOX_BYTES = 256 << 10
_CHUNK_BYTES = 64 << 10
LONGEST_BLOCK = struct.pack("ll", 1, 0)  # a timeval: seconds, microseconds
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid of who has written
_ANCILLARY = CMSG_SPACE(4) + CMSG_SPACE(_CREDENTIALS.size)  # one descriptor, and those


def down_frame(kind: int, payload: bytes) -> bytes:
    """Return a frame for a worker."""
    return DOWN_HEAD.pack(kind << KIND_SHIFT | len(payload)) + payload


class Inbox:
    """The worker's end: takes frames from the socket, one at a time. Owned by the worker's main thread.

    ``recv_into`` a buffer made once: a ``recv`` of more than 128 KiB maps and unmaps memory each time, and was the largest cost of all.
    """

    def __init__(self, receive_into: Callable[[memoryview], int]) -> None:
        self._receive_into = receive_into
        self._buffer = memoryview(bytearray(_INBOX_BYTES))
        self._start = self._end = 0
        self.lock = allocate_lock()  # the process's own: a unit's thread that waits for replies reads here too
        self.stash: deque[tuple[int, memoryview]] = deque()  # frames that came while a unit waited for replies

    def next(self) -> tuple[int, memoryview] | None:
        """Wait for the next frame; None when the parent has closed the socket. The view holds until the next call."""
        if self.stash:
            return self.stash.popleft()
        return self.receive()

    def buffered(self) -> bool:
        """Return whether bytes have been received that belong to no frame yet handed out."""
        return self._end > self._start

    def receive(self) -> tuple[int, memoryview] | None:
        """The same, past the stash."""
        while self._end - self._start < DOWN_HEAD.size:
            if not self._fill():
                return None
        word = DOWN_HEAD.unpack_from(self._buffer, self._start)[0]
        length = word & LENGTH_MASK
        first = self._start + DOWN_HEAD.size
        if length > _INBOX_BYTES - DOWN_HEAD.size:
            body = self._large(first, length)
            return None if body is None else (word >> KIND_SHIFT, body)
        while self._end - self._start < DOWN_HEAD.size + length:
            if not self._fill():
                return None
        first = self._start + DOWN_HEAD.size
        self._start = first + length
        return word >> KIND_SHIFT, self._buffer[first : self._start]

    def _fill(self) -> bool:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and len(self._buffer) - self._end < _CHUNK_BYTES:
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        count = self._receive_into(self._buffer[self._end :])
        self._end += count
        return count > 0

    def _large(self, first: int, length: int) -> memoryview | None:
        body = memoryview(bytearray(length))
        have = self._end - first
        body[:have] = self._buffer[first : self._end]
        self._start = self._end = 0
        while have < length:
            count = self._receive_into(body[have:])
            if not count:
                return None
            have += count
        return body


class Frame:
    """A frame that came up, other than a result. ``taken`` is stored in the same breath as what it brings, so that it is taken once."""

    __slots__ = ("kind", "payload", "taken")

    def __init__(self, kind: int, payload: bytes | memoryview) -> None:
        self.kind = kind
        self.payload = payload
        self.taken = False


class Incoming:
    """The parent's end, reading: whole frames out of whatever has arrived, without waiting. Owned by the holder of the lead.

    A lone waiter of ours is woken by a bell that we write into the worker's end ourselves (`kick`), and that may fall into the middle
    of a frame of the worker's. So the kernel says who has written what (it never gives bytes of two writers at once).
    """

    def __init__(self, socket: socket) -> None:
        socket.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)
        socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, LONGEST_BLOCK)
        self._pid = os.getpid()
        self.results: deque[bytes | memoryview] = deque()  # large results, in order; whoever settles the unit takes them
        self.others: deque[Frame] = deque()
        self.counted = 0  # frames that were ever put into `others`
        self._socket = socket
        self._arrived: deque[tuple[bytes, list[tuple[int, int, bytes]], int, object]] = deque()  # as recvmsg gave it
        self._chunks: deque[bytes] = deque()  # not yet parsed
        self.fds: deque[int] = deque()  # that came with frames, in their order; whoever takes such a frame takes one
        self._large: memoryview | None = None  # the payload that is being received in place
        self._counts: deque[tuple[int, list[Any], int, Any]] = deque()  # how much of it has arrived, call by call, as recvmsg_into gave it
        self._kind = UP_BELL

    @property
    def partial(self) -> bool:
        """True while a frame has arrived in part."""
        return self._large is not None or bool(self._chunks) or bool(self._arrived)

    def close_fds(self) -> None:
        """Close descriptors that nobody took."""
        while self.fds:
            os.close(self.fds.popleft())

    def wait_one_byte(self) -> None:
        """Block until something arrives (or the other end was shut), and keep it; for a second at most."""
        try:
            self._arrived.extend(map(self._socket.recvmsg, (1,), (_ANCILLARY,)))
        except BlockingIOError:  # a signal that came right before the call does not end it, and its handler would wait with us
            return
        if self._arrived[-1][0] == BELL and self._large is None and len(self._arrived) == 1 and not self._chunks:
            self._arrived.clear()

    def receive(self) -> None:
        """Put the frames that are there into ``results`` and ``others``, bells left out."""
        while True:
            if self._large is not None:
                if not self._receive_large():
                    return
                self._keep(self._kind, self._large, deque())
            elif not self._parse() and self._large is None and not self._receive():
                return

    def _keep(self, kind: int, payload: bytes | memoryview, rest: deque[bytes]) -> None:
        """Take a frame off the stream and keep it. No call returns between the two, so nothing can strike there."""
        frame = Frame(kind, payload)
        keep_result, keep_other = self.results.append, self.others.append
        if kind == UP_RESULT:
            self._chunks, self._large = rest, None
            keep_result(payload)
        else:
            self._chunks, self._large = rest, None
            self.counted += 1
            keep_other(frame)

    def _receive(self) -> bool:
        try:
            self._arrived.extend(map(self._socket.recvmsg, (_CHUNK_BYTES,), (_ANCILLARY,), (MSG_DONTWAIT,)))
        except OSError:
            return False
        return bool(self._arrived[-1][0])  # nothing: end of file

    def _receive_large(self) -> bool:
        """Go on with a large payload; True when it is whole."""
        assert self._large is not None
        while (have := sum(map(self._counted, self._counts))) < len(self._large):
            rest = self._large[have:]
            try:
                self._counts.extend(map(self._socket.recvmsg_into, ((rest,),), (_ANCILLARY,), (MSG_DONTWAIT,)))
            except OSError:
                return False
            if not self._counts[-1][0]:
                return False
        return True

    def _counted(self, received: tuple[int, list[Any], int, Any]) -> int:
        """Return how many bytes a call has brought; none where it was a kick, which the next call has written over."""
        return 0 if received[0] == 1 and self._is_ours(received[1]) else received[0]

    def _is_ours(self, ancillary: list[Any]) -> bool:
        """Return whether we have written it ourselves."""
        return any(kind == SCM_CREDENTIALS and _CREDENTIALS.unpack(packed)[0] == self._pid for _, kind, packed in ancillary)

    def _parse(self) -> bool:
        """Take one frame out of the chunks, or set out to receive a large one in place. Return whether a frame was there."""
        self._unwrap()
        chunks = self._chunks
        if not chunks:
            return False
        if len(chunks) > 1:
            data = b"".join(chunks)
            self._chunks = chunks = deque((data,))
        data = chunks[0].lstrip(BELL)  # bells stand between frames only, and no frame begins with their byte
        if len(data) < UP_HEAD.size:
            self._chunks = deque((data,)) if data else deque()
            return False
        kind, length = UP_HEAD.unpack_from(data)
        end = UP_HEAD.size + length
        if len(data) >= end:
            rest = data[end:]
            self._keep(kind, data[UP_HEAD.size : end], deque((rest,)) if rest else deque())
            return True
        if length > _CHUNK_BYTES:
            large = memoryview(bytearray(length))
            have = len(data) - UP_HEAD.size
            large[:have] = data[UP_HEAD.size :]
            counts: deque[tuple[int, list[Any], int, Any]] = deque([(have, [], 0, None)])
            none = deque[bytes]()
            self._kind, self._counts, self._large, self._chunks = kind, counts, large, none
        else:
            self._chunks = deque((data,))
        return False

    def _unwrap(self) -> None:
        """Split what recvmsg gave into bytes and descriptors; again in one breath (see `_keep`)."""
        while self._arrived:
            data, ancillary, _, _ = self._arrived[0]
            came = (fd for _, kind, packed in ancillary if kind == SCM_RIGHTS for (fd,) in struct.iter_unpack("i", packed))
            fds = deque((*self.fds, *came))
            kick = data == BELL and self._is_ours(ancillary)
            chunks = deque((*self._chunks, data)) if data and not kick else self._chunks
            take = self._arrived.popleft
            self._chunks, self.fds = chunks, fds
            take()


class Outgoing:
    """The parent's end, writing: never waits, keeps what the socket does not take. Owned by the holder of the dispatch lock."""

    def __init__(self, socket: socket) -> None:
        self._socket = socket
        self._left: deque[tuple[bytes, deque[int]]] = deque()  # a frame, and how much of it was sent, call by call

    @property
    def waiting(self) -> bool:
        """True while bytes are left that the socket did not take."""
        return bool(self._left)

    def send(self, frame: bytes) -> None:
        """Append a frame and write what the socket takes now."""
        self._left.append((frame, deque()))
        self.push()

    def push(self) -> bool:
        """Write on; return True when nothing is left. Where the worker is gone the rest is dropped: its death comes by another road."""
        while self._left:
            frame, sent = self._left[0]
            rest = memoryview(frame)[sum(sent) :] if sent else frame
            if rest:
                try:
                    sent.extend(map(self._socket.send, (rest,), (MSG_DONTWAIT,)))
                except BlockingIOError:
                    return False
                except OSError:
                    self._left.clear()
                    return True
                if sent[-1] < len(rest):
                    continue
            self._left.popleft()
        return True


class Upward:
    """The worker's end, writing. Threads of a unit may log while its result is sent; the lock is the process's own.

    A unit's signal handler, or a finalizer, may come in the middle of a sending, in the same thread, and send as well, or raise. So a
    frame stands in a list until it was sent whole: whoever has begun goes on with what came meanwhile, and what an exception has cut
    short is ended by the next one who sends.
    """

    def __init__(self, socket: socket) -> None:
        self._socket = socket
        self._lock = RLock()
        self.left: deque[tuple[list[memoryview], list[tuple[int, int, bytes]], deque[int]]] = deque()  # frame, descriptor, bytes sent

    def bell(self) -> None:
        """Wake the thread that waits on this socket alone."""
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            with self._lock:
                if not self.left:  # else what is left of a frame comes first, and wakes it as well
                    self._socket.send(BELL)
        if self.left:
            self.push()

    def frame(self, kind: int, *parts: bytes | memoryview, fd: int = -1) -> None:
        """Send one frame, waiting as long as the parent takes to read it; a descriptor may travel with it."""
        self.left.append(self.item(kind, *parts, fd=fd))
        self.push()

    @staticmethod
    def item(kind: int, *parts: bytes | memoryview, fd: int = -1) -> tuple[list[memoryview], list[tuple[int, int, bytes]], deque[int]]:
        """Return a frame as it stands in ``left``."""
        views = [memoryview(part) for part in (UP_HEAD.pack(kind, sum(map(len, parts))), *parts)]
        return views, [(SOL_SOCKET, SCM_RIGHTS, struct.pack("i", fd))] if fd >= 0 else [], deque()

    def push(self) -> None:
        """Send what is left. Does nothing in the middle of our own thread's sending, which looks again when it has ended."""
        while self.left and not self._lock._is_owned():  # type: ignore[attr-defined]
            with self._lock:
                try:
                    while self.left:
                        self._send(*self.left[0])
                        self.left.popleft()
                except OSError:
                    self.left.clear()
                    raise

    def _send(self, views: list[memoryview], descriptor: list[tuple[int, int, bytes]], sent: deque[int]) -> None:
        length = sum(map(len, views))
        while (done := sum(sent)) < length:
            sent.extend(map(self._socket.sendmsg, (_from(views, done),), (() if done else descriptor,)))


def _from(views: list[memoryview], done: int) -> list[memoryview]:
    """Return what is left of the views after so many bytes."""
    rest = []
    for view in views:
        if done < len(view):
            rest.append(view[done:])
        done = max(0, done - len(view))
    return rest


__all__ = ["BELL", "Inbox", "Incoming", "Outgoing", "Upward", "down_frame"]
