"""Asks a worker for its Python stacks: by a signal, which is answered also where C code keeps the interpreter's lock.

The worker's faulthandler writes to a memfd that the worker has open, and that is read here by way of /proc. Nothing is sent to a process
that is not ready for it: the signal would end it. Where no answer comes the kernel is asked what the process does.
"""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time

from workq.process import ending
from workq.transport.board import STACK_MEMORY, STACK_SIGNAL

LONGEST_PAUSE_MS = 8
AGAIN_S = 0.1  # a worker that has not begun to answer by then is asked again, if the question went astray
MOST_BYTES = 256 << 10
BIT = 1 << (STACK_SIGNAL - 1)
STOPPED = "Tt"
FRAME = re.compile(r'  File "(?P<file>[^"]*)", line \d+ in ')
OUTERMOST = (" in <module>\n", " in _run_module_as_main\n", "  ...\n")  # how a main thread's last line ends: then nothing follows
_asking = threading.Lock()  # one question at a time: there is one sheet for the answer


class NoAnswer(Exception):
    """Why there is no stack."""


def stack_of(pid: int, fd: int, timeout_s: float) -> str:
    """Return the Python stacks of a worker's threads, or a sentence that says why there are none and what the kernel knows."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError):
        return f"process {pid} has ended"
    try:
        if not _asking.acquire(timeout=timeout_s):
            return "another thread is just asking a worker that does not answer"
        try:
            return readable(_ask_and_wait(pid, pidfd, fd, timeout_s))
        finally:
            _asking.release()
    except NoAnswer as why:
        return f"{why}\n{_what_the_kernel_says(pid)}".rstrip()
    finally:
        os.close(pidfd)


def ask(pid: int, fd: int) -> None:
    """Ask, and do not wait. Whoever wants the answer later calls `answer`."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        os.close(_ask(pid, pidfd, fd))
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


def _ask_and_wait(pid: int, pidfd: int, fd: int, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    sheet = _ask(pid, pidfd, fd)
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        pause_ms, before, again = 1, "", time.monotonic() + AGAIN_S
        while not ended.poll(pause_ms):
            text = os.pread(sheet, MOST_BYTES, 0).decode("utf-8", "backslashreplace")
            late = time.monotonic() >= deadline
            if (_is_whole(text) and (text.endswith(OUTERMOST) or text == before)) or (text and late):
                return text
            before = text
            if not text and time.monotonic() >= again and _ignores_or_has_lost(pid):
                again = time.monotonic() + AGAIN_S
                signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
            if late:
                raise NoAnswer(f"it has not answered within {timeout_s:g} s")
            pause_ms = min(2 * pause_ms, LONGEST_PAUSE_MS)
        raise NoAnswer("it has just ended")
    finally:
        os.close(sheet)


def _ask(pid: int, pidfd: int, fd: int) -> int:
    """Send the signal, if the process is ready for it; return a descriptor of the sheet, empty, on which it writes."""
    sheet = _open_sheet(pid, fd)
    try:
        status = status_of(pid)
        if not int(status.get("SigCgt", "0"), 16) & BIT and not int(status.get("SigIgn", "0"), 16) & BIT:
            raise NoAnswer("its unit has taken away the handler of the signal that would ask it")
        if status.get("State", "?")[0] in STOPPED:
            raise NoAnswer("it is stopped, by a signal or a debugger")
        os.ftruncate(sheet, 0)
        signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
    except NoAnswer:
        os.close(sheet)
        raise
    except OSError as error:
        os.close(sheet)
        raise NoAnswer(f"it cannot be asked: {error}") from None
    return sheet


def _open_sheet(pid: int, fd: int) -> int:
    path = f"/proc/{pid}/fd/{fd}"
    try:
        if os.readlink(path) != f"/memfd:{STACK_MEMORY} (deleted)":
            raise NoAnswer("its unit has closed the descriptor on which it would answer")
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NoAnswer(f"it cannot be looked into: {error.strerror}") from None


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
        frames = frames[: places.index("worker/main.py")]
    while frames and _place(frames[-1]) in ("transport/group.py", "transport/byvalue.py"):
        del frames[-1]
    name = "main thread" if main else head.replace("Current thread", "thread").split(" (most")[0].replace("Thread", "thread")
    if main and frames and all(_place(frame) for frame in frames):
        return [f"{name}: waits for units"]
    return [f"{name} (most recent call first):", *frames] if frames else [f"{name}: in a function that is not written in Python"]


def _place(frame: str) -> str:
    """Return which of our files a frame is in; an empty text for others."""
    match = FRAME.match(frame)
    return match["file"].removeprefix(_HERE) if match is not None and match["file"].startswith(_HERE) else ""


_HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep
