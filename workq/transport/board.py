"""Shared memory of one worker: a few words, and a ring in which its finished results survive it.

Two sides look at it without any lock. Each word has one writer (WAIT is written by the parent and cleared by the worker).

* The worker announces unit number ``n`` (numbers count per worker, from 1) by ``STARTED = n``. The result of ``n - 1`` was written
  before, so the same word says that ``n - 1`` has ended: one store per unit.
* A result is one 64-bit header, ``HEADERS[n % SLOTS]``, with its kind in the low 4 bits. A small value is in the header itself
  (`ATOM` kinds); else the header says where in the ring its payload lies. Payload first, then header, then word: on x86 stores
  become visible in order. Other processors get a fence for each unit (`FENCE_EACH_UNIT`).
* ``LIMIT`` is the last number that the worker may begin. The worker announces, then looks at the limit; the parent lowers the limit,
  then looks at what is announced. Between the two steps each side needs a full fence, which x86 needs too; the parent's
  `membarrier` serves both where the kernel has it, so that the worker pays nothing (`ASYMMETRIC`).
* ``WAIT`` says who wants to be rung up when a batch has ended; see `Waiting`. The worker clears it, then rings.

The memory is a memfd: no name, no file, and gone with its last owner. Where there is no memfd it is an unlinked temporary file.
"""

from __future__ import annotations

import mmap
import os
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# -- words written by the worker
STARTED = 0  # the unit that it has announced
FINISHED = 1  # the last unit of the last batch that has ended
LARGE = 2  # the unit whose result is on its way through the socket
BATCH_AT = 3  # time.monotonic_ns() at the start of the batch
BEAT = 4  # time.monotonic_ns() of its last heartbeat
BLOCKED = 5  # how many declared waits its main thread is in
FRAMES = 6  # how many frames it has sent up, results and bells left out
MEASURED = 7  # the unit with limits that it runs, or ran last; the two below are of the instant at which that began
UNIT_RSS = 8  # the memory that the worker held, bytes
UNIT_CPU = 9  # the CPU time that it and the children that it waited for had used, nanoseconds
WAIT_NUMBER = 12  # odd while its main thread waits for units that its own unit has queued, and will until they have ended; it only grows
WAIT_QUEUE, WAIT_UNIT = 13, 14  # for which: the worker's number of the queue, and the unit's; 0: for all of them
PROGRESS_OF = 7  # the unit whose progress is told
PROGRESS = 8  # how far it is: billionths, and one more; 0: it does not say
PROGRESS_TURN = 9  # odd while progress is being written
STACK_FD = 10  # the worker's descriptor of the memory in which it writes its stacks; 0: none
STACK_ASK = 11  # the descriptor of the pipe at which it is asked for them; the bits from ASK_SHIFT on: which pipe; 0: none
WATCH_THREAD = 15  # the kernel's number of its watch thread
# -- words written by the parent, on another cache line
LIMIT = 16
WAIT = 17
READ = 18  # the position up to which the ring has been read
TARGET = 19  # the unit that is to be interrupted
POOLS = 20  # how often the categories were changed; a unit that makes a queue looks whether it knows them as they are

STACK_SIGNAL = 60  # a real-time signal (SIGRTMAX - 4): asks a worker for its stacks
STACK_MEMORY = "workq-stack"
ASK_SHIFT = 24  # more bits than a descriptor has

EXIT_MAIMED = 74  # what a worker exits with after a unit that has closed its descriptors
EXIT_LOCKED = 75  # after a unit that has ended and still held a lock

NOBODY, LEADER, CONTROLLER, LONE = range(4)  # the values of WAIT: whom to ring
NO_LIMIT = (1 << 63) - 1

WORDS = 64  # from 32 on: which locks its worker has (lockpage.py)
SLOTS = 2048  # more than units can be in flight with one worker, so headers are never overwritten unread
MASK = SLOTS - 1
RING_BYTES = 256 << 10
RING_PAYLOAD_BYTES = 64 << 10  # the most that one result may take of it; larger ones go by the socket

PROGRESS_TRIES = 10  # at reading what is just being written
PROGRESS_BYTES = 400  # the most that a unit may say of its progress

_SAID_AT = 2048  # what it says: two bytes of length, and the text
_HEADERS_AT = 4096
_ENDS_AT = _HEADERS_AT + SLOTS * 8
_RING_AT = _ENDS_AT + SLOTS * 8
BOARD_BYTES = _RING_AT + RING_BYTES

# -- kinds of result: the low 4 bits of a header
KIND_BITS = 4
(
    KIND_NONE,  # None
    KIND_INT,  # a small non-negative int, in the header
    KIND_PICKLE,  # header: kind | length << 4 | position << 21; the position in the ring counts on and on, modulo POSITION_MASK + 1
    KIND_MARSHAL,  # the same, for a value of a built-in type: reading it runs no code of anybody
    KIND_ERROR,  # what codec.dump_error made
    KIND_INTERRUPTED,  # ExternalInterrupt ended it; payload as for an error
    KIND_NOTED,  # a marshalled (kind, payload, notes): the unit has left output or traces
    KIND_SOCKET,  # the same, but by the socket: too large for the ring
    KIND_SKIPPED,  # it was not begun: above the limit, or cancelled
    KIND_TRUE,
    KIND_FALSE,
    KIND_SEGMENT,  # a marshalled (number, lengths): it lies in a segment of the worker's
) = range(12)
LENGTH_SHIFT = KIND_BITS
LENGTH_MASK = (1 << 17) - 1
POSITION_SHIFT = LENGTH_SHIFT + 17
POSITION_MASK = (1 << 42) - 1
RING_MASK = RING_BYTES - 1
INT_LIMIT = 1 << 59

FENCE_EACH_UNIT = os.uname().machine not in ("x86_64", "i686", "AMD64")


class Board:
    """One worker's shared memory, as either side sees it.

    Attributes:
        fd: The descriptor of the memory; the side that made it hands it over and closes it by ``close_fd``.
        words: The words, by the numbers above.
        headers: One header for each of the last ``SLOTS`` units.
        ends: When each of them ended, ``time.monotonic_ns()``.
        ring: The bytes of the payloads.
    """

    __slots__ = ("ends", "fd", "headers", "ring", "said", "words")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        view = memoryview(mmap.mmap(fd, BOARD_BYTES))
        self.words = view[: WORDS * 8].cast("Q")
        self.said = view[_SAID_AT : _SAID_AT + 2 + PROGRESS_BYTES]
        self.headers = view[_HEADERS_AT:_ENDS_AT].cast("Q")
        self.ends = view[_ENDS_AT:_RING_AT].cast("Q")
        self.ring = view[_RING_AT:]

    @classmethod
    def create(cls) -> Board:
        """Make the memory of a new worker. Raises OSError where there are no descriptors or no memory left."""
        fd = _anonymous_file(BOARD_BYTES)
        try:
            board = cls(fd)
        except BaseException:
            os.close(fd)
            raise
        board.words[LIMIT] = NO_LIMIT
        board.words[WAIT] = CONTROLLER
        return board

    @classmethod
    def attach(cls, fd: int) -> Board:
        """Map the memory that the parent has made; the descriptor is not needed afterwards."""
        board = cls(fd)
        board.close_fd()
        return board

    def close_fd(self) -> None:
        """Close the descriptor; the memory stays. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Let go of the memory, and keep the words as they were. Safe to call twice.

        Nothing is released by force: another thread may just be looking, and the memory goes with the last who does.
        """
        self.close_fd()
        self.words = memoryview(bytearray(self.words)).cast("Q")
        self.headers = self.ends = memoryview(bytearray(SLOTS * 8)).cast("Q")
        self.ring = memoryview(b"")
        self.said = memoryview(bytearray(2 + PROGRESS_BYTES))

    def say_progress(self, number: int, fraction: float | None, text: bytes) -> None:
        """In the worker: tell how far a unit is. One thread at a time."""
        words = self.words
        words[PROGRESS_TURN] += 1
        words[PROGRESS_OF] = number
        words[PROGRESS] = 0 if fraction is None else int(fraction * 1e9) + 1
        self.said[: 2 + len(text)] = len(text).to_bytes(2, "big") + text
        words[PROGRESS_TURN] += 1

    def progress(self, number: int) -> tuple[float | None, str] | None:
        """In the parent: return how far a unit says that it is, and what it says; None where it has said nothing."""
        words = self.words
        for _ in range(PROGRESS_TRIES):
            turn = words[PROGRESS_TURN]
            of, fraction, said = words[PROGRESS_OF], words[PROGRESS], bytes(self.said)
            if turn == words[PROGRESS_TURN] and not turn % 2:
                break
        else:
            return None
        if of != number or not turn:
            return None
        text = said[2 : 2 + int.from_bytes(said[:2], "big")].decode("utf-8", "ignore")
        return (fraction - 1) / 1e9 if fraction else None, text


def _anonymous_file(size: int) -> int:
    """Return a descriptor of memory without a name."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("workq-board", os.MFD_CLOEXEC)
    else:
        fd = _unlinked_file()
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unlinked_file() -> int:
    """Return a descriptor of a temporary file that has no name any more (where there is no memfd)."""
    import tempfile

    fd, path = tempfile.mkstemp(prefix="workq-board-")
    os.unlink(path)
    return fd


# ---------------------------------------------------------------- fences

_fence_lock = allocate_lock()  # never shared: each thread takes and gives it back at once, for the sake of the locked instruction


def fence() -> None:
    """A full memory fence of the calling thread: a locked instruction, as a free lock needs one to be taken."""
    with _fence_lock:  # the only form that an exception of a signal handler cannot leave half done
        pass


_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_QUERY, _GLOBAL_EXPEDITED, _REGISTER = 0, 2, 4


_syscall: Callable[..., int] | None = None


def _membarrier(command: int) -> int:
    global _syscall
    number = _MEMBARRIER.get(os.uname().machine)
    if number is None or os.uname().sysname != "Linux":
        return -1
    if _syscall is None:
        from workq.transport import clibrary

        _syscall = clibrary.function("syscall")
    return _syscall(number, command, 0, 0)


def load_barriers() -> None:
    """In the parent, before there is need: what a barrier is made of is loaded while there are descriptors to load it with."""
    _membarrier(_QUERY)


def register_for_barriers() -> bool:
    """In the worker: let the parent's barrier reach us. Returns False where that is impossible: then fence for each unit."""
    return _membarrier(_REGISTER) == 0


def barrier_everywhere() -> None:
    """In the parent, between lowering a limit and looking at what was announced: a full fence here and in every worker."""
    fence()
    _membarrier(_GLOBAL_EXPEDITED)
