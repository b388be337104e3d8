"""Asks a worker for its Python stacks, so that its unit notices nothing; answered also where C code keeps the interpreter's lock.

1. A byte in a pipe asks the worker's watch thread, which writes them as soon as it has the interpreter's lock. Nobody is interrupted.
2. Where it has not begun within `PATIENCE_S` somebody keeps that lock: the byte is taken back, and a signal asks, in whose handler
   faulthandler writes. It goes to a thread that it does not disturb: to the main one where that computes, for nothing then changes under
   the handler's eyes; to the watch thread where the main one waits in the kernel, as a system call of C code that is interrupted fails
   (EINTR).

Both write to a memfd that the worker has open, and that is read here by way of /proc; the pipe is reached in the same way. Nothing is sent
to a process that is not ready for it: the signal would end it. Where no answer comes the kernel is asked what the process does.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import threading
import time
from typing import NamedTuple

from workq.process import ending
from workq.transport import clibrary
from workq.transport.board import ASK_SHIFT, STACK_ASK, STACK_FD, STACK_MEMORY, STACK_SIGNAL, WATCH_THREAD

LONGEST_PAUSE_MS = 8
PATIENCE_S = 0.1  # with a worker that is asked by its pipe; half of the time-out where that is less
AGAIN_S = 0.1  # a worker that has not begun to answer by then is asked again, if the question went astray
MOST_BYTES = 256 << 10
BIT = 1 << (STACK_SIGNAL - 1)
STOPPED, WAITING = "Tt", "SD"
FRAME = re.compile(r'  File "(?P<file>[^"]*)", line \d+ in (?P<function>.*)')
OUTERMOST = (" in <module>\n", " in _run_module_as_main\n", "  ...\n")  # how a main thread's last line ends: then nothing follows
_asking = threading.Lock()  # one question at a time: there is one sheet for the answer


class NoAnswer(Exception):
    """Why there is no stack."""


class Desk(NamedTuple):
    """Where a worker can be asked: what its board says. A number of 0: nowhere."""

    fd: int = 0  # its descriptor of the sheet on which it answers
    pipe: int = 0  # of the pipe, and which pipe that is
    watch_thread: int = 0


NOWHERE = Desk()


def desk_of(words: memoryview) -> Desk:
    """Return where the worker of a board can be asked."""
    return Desk(words[STACK_FD], words[STACK_ASK], words[WATCH_THREAD])


def stack_of(pid: int, desk: Desk, timeout_s: float) -> str:
    """Return the Python stacks of a worker's threads, or a sentence that says why there are none and what the kernel knows."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError):
        return f"process {pid} has ended"
    try:
        if not _asking.acquire(timeout=timeout_s):
            return "another thread is just asking a worker that does not answer"
        try:
            return readable(_ask_and_wait(pid, pidfd, desk, timeout_s))
        finally:
            _asking.release()
    except NoAnswer as why:
        return f"{why}\n{_what_the_kernel_says(pid)}".rstrip()
    finally:
        os.close(pidfd)


def ask(pid: int, fd: int) -> None:
    """Ask by the signal, and do not wait. Whoever wants the answer later calls `answer`. For a unit that is interrupted as well."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        sheet = _open_sheet(pid, fd)
        try:
            _make_ready(pid, sheet)
            _send(pid, pidfd)  # to the main thread, which is interrupted all the same
        finally:
            os.close(sheet)
    except NoAnswer:
        return
    finally:
        os.close(pidfd)


def answer(pid: int, fd: int) -> str:
    """Return what a worker has answered until now; an empty text if nothing."""
    try:
        sheet = _open_sheet(pid, fd)
    except NoAnswer:
        return ""
    try:
        return readable(os.pread(sheet, MOST_BYTES, 0).decode("utf-8", "backslashreplace"))
    finally:
        os.close(sheet)


def _ask_and_wait(pid: int, pidfd: int, desk: Desk, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    sheet = _open_sheet(pid, desk.fd)
    try:
        _make_ready(pid, sheet)
        text = _ask_by_pipe(pid, pidfd, desk, sheet, deadline, min(PATIENCE_S, timeout_s / 2))
        asked = False
        while not text:
            if asked and time.monotonic() >= deadline:
                raise NoAnswer(f"it has not answered within {timeout_s:g} s")
            if not asked or _ignores_or_has_lost(pid):
                _send(pid, pidfd, desk.watch_thread)
            asked = True
            text = _read(pidfd, sheet, min(time.monotonic() + AGAIN_S, deadline), deadline)
        return text
    finally:
        os.close(sheet)


def _ask_by_pipe(pid: int, pidfd: int, desk: Desk, sheet: int, deadline: float, patience_s: float) -> str:
    """Return what the watch thread answers; nothing where it does not, and will not."""
    try:
        pipe = _open(pid, desk.pipe & (1 << ASK_SHIFT) - 1, f"pipe:[{desk.pipe >> ASK_SHIFT}]")  # else it may be one of its unit's
    except (NoAnswer, OSError):  # closed by its unit
        return ""
    try:
        os.write(pipe, b"?")
        text = _read(pidfd, sheet, time.monotonic() + patience_s, deadline)
        if not text and not _taken_back(pipe):  # it is about to answer
            text = _read(pidfd, sheet, time.monotonic() + patience_s, deadline)
        return text
    except BlockingIOError:  # full: nobody reads it
        return ""
    finally:
        os.close(pipe)


def _taken_back(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 64))
    except BlockingIOError:
        return False


def _read(pidfd: int, sheet: int, begun_by: float, deadline: float) -> str:
    """Return an answer as soon as it is whole; nothing where it has not begun in time; at the deadline what there is of it."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    pause_ms, before = 1, ""
    while not ended.poll(pause_ms):
        now = time.monotonic()  # before the look
        text = os.pread(sheet, MOST_BYTES, 0).decode("utf-8", "backslashreplace")
        if _is_whole(text) and (text.endswith(OUTERMOST) or text == before):
            return text
        if now >= (deadline if text else begun_by):
            return text
        before = text
        pause_ms = min(2 * pause_ms, LONGEST_PAUSE_MS)
    raise NoAnswer("it has just ended")


def _make_ready(pid: int, sheet: int) -> None:
    """Empty the sheet. Raises NoAnswer where the process is stopped, and would answer when nobody asks any more."""
    if status_of(pid).get("State", "?")[0] in STOPPED:
        raise NoAnswer("it is stopped, by a signal or a debugger")
    try:
        os.ftruncate(sheet, 0)
    except OSError as error:
        raise NoAnswer(f"it cannot be asked: {error}") from None


def _send(pid: int, pidfd: int, watch_thread: int = 0) -> None:
    """Send the signal, if the process is ready for it: to the watch thread, where there is one and the main thread waits."""
    status = status_of(pid)
    if not int(status.get("SigCgt", "0"), 16) & BIT and not int(status.get("SigIgn", "0"), 16) & BIT:
        raise NoAnswer("its unit has taken away the handler of the signal that would ask it")
    if watch_thread and status.get("State", "?")[0] in WAITING and _send_to_thread(pid, watch_thread):
        return
    try:
        signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
    except OSError as error:
        raise NoAnswer(f"it cannot be asked: {error}") from None


def _send_to_thread(pid: int, thread: int) -> bool:
    """Send the signal to one thread, which is named by both numbers, so that none of another process is hit. False where it cannot be."""
    try:
        return clibrary.function("tgkill")(pid, thread, STACK_SIGNAL) == 0
    except OSError:  # not every C library has it
        return False


def _open_sheet(pid: int, fd: int) -> int:
    try:
        return _open(pid, fd, f"/memfd:{STACK_MEMORY} (deleted)")
    except OSError as error:
        raise NoAnswer(f"it cannot be looked into: {error.strerror}") from None


def _open(pid: int, fd: int, what: str) -> int:
    """Open what a descriptor of a process leads to, if it is what it should be."""
    path = f"/proc/{pid}/fd/{fd}"
    if os.readlink(path) != what:
        raise NoAnswer("its unit has closed the descriptor on which it would answer")
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _ignores_or_has_lost(pid: int) -> bool:
    """Return whether the signal went astray: while a worker ends its last answer it ignores the next question, for some microseconds."""
    status = status_of(pid)
    pending = int(status.get("ShdPnd", "0"), 16) | int(status.get("SigPnd", "0"), 16)
    return not pending & BIT and bool(int(status.get("SigCgt", "0"), 16) & BIT)


def _is_whole(text: str) -> bool:
    """Return whether an answer is there as far as it matters: the main thread comes last, and ends with our own frames."""
    lines = text.rpartition("\n\n")[2].splitlines(keepends=True)
    return any(line.endswith("\n") and (_place(line) == "worker/main.py" or line == "  ...\n") for line in lines)


def status_of(pid: int, task: str = "") -> dict[str, str]:
    """Return /proc/PID/status, or that of one of its threads, as a dict; empty where it is gone."""
    path = f"/proc/{pid}/task/{task}/status" if task else f"/proc/{pid}/status"
    lines = ending.read_small_file(path).decode(errors="replace").splitlines()
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _what_the_kernel_says(pid: int) -> str:
    """Return the state of a process, what it waits in, and its kernel stack where we may read it."""
    state = status_of(pid).get("State")
    if state is None:
        return ""
    where = ending.read_small_file(f"/proc/{pid}/wchan").decode(errors="replace").strip("0\0 ")
    stack = ending.read_small_file(f"/proc/{pid}/stack").decode(errors="replace").strip()
    lines = [f"the kernel says: {state}" + (f", in {where}" if where else "")]
    return "\n".join(lines + ["  " + line for line in stack.splitlines()])


# ---------------------------------------------------------------- for people


def readable(text: str) -> str:
    """Return faulthandler's page without our own frames: of each thread what is the unit's, the main thread first."""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    named = [_named(block[0], block[1:]) for block in blocks if block]
    return "\n".join(line for block in sorted(filter(None, named), key=lambda block: not block[0].startswith("main")) for line in block)


def _named(head: str, frames: list[str]) -> list[str]:
    """Return a thread's block, named; nothing for one of ours."""
    places = [_place(frame) for frame in frames]
    if "worker/watch.py" in places or [frame.strip() for frame in frames] == ["<no Python frame>"]:  # ours, or one that just begins or ends
        return []
    main = "worker/main.py" in places
    if main:
        frames = frames[: _outermost(places, "worker/main.py")]
    while frames and _place(frames[-1]) in ("transport/group.py", "transport/byvalue.py"):
        del frames[-1]
    name = "main thread" if main else head.replace("Current thread", "thread").split(" (most")[0].replace("Thread", "thread")
    if main and frames and all(_place(frame) for frame in frames):
        return [f"{name}: waits for units"]
    frames, inside = _from_the_units_on(frames)
    return [f"{name}{inside} (most recent call first):", *frames] if frames else [f"{name}: in a function that is not written in Python"]


def _outermost(places: list[str], place: str) -> int:
    """Return where the last row of frames in this file begins: a unit's code may have led there too, for as long as it says something."""
    at = len(places) - 1 - places[::-1].index(place)
    while at and places[at - 1] == place:
        at -= 1
    return at


def _from_the_units_on(frames: list[str]) -> tuple[list[str], str]:
    """Return frames without those of ours that a unit's code has led to (a lock that it waits for), and which of them it called."""
    ours = list(itertools.takewhile(lambda frame: _place(frame) or _is_of_threading(frame), frames))
    while ours and not _place(ours[-1]):
        del ours[-1]
    if not ours or len(ours) == len(frames):
        return frames, ""
    called = FRAME.match(ours[-1])
    return frames[len(ours) :], f", in workq/{_place(ours[-1])} {called['function'] if called is not None else ''}"


def _is_of_threading(frame: str) -> bool:
    match = FRAME.match(frame)
    return match is not None and match["file"] == threading.__file__


def _place(frame: str) -> str:
    """Return which of our files a frame is in; an empty text for others."""
    match = FRAME.match(frame)
    return match["file"].removeprefix(_HERE) if match is not None and match["file"].startswith(_HERE) else ""


_HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep
