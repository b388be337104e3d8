"""What ``ps`` shows of our processes: the launcher and each worker say what they are, and whose.

A process's arguments lie in its own memory, and the kernel shows what stands there now; so a title is written over the command line that
the process was started with, as far as that is long enough. The launcher's is: it holds the code that it begins with.
"""

from __future__ import annotations

import os

MOST_BYTES = 1 << 17  # of arguments; more is no command line that we know of
PREFIX = "workq "

_place: tuple[int, int] | None = None  # where the arguments lie, and how many bytes; looked up once, by the launcher, for its forks too


def show_title(text: str) -> None:
    """Show this text as the command line of the process. A title is a convenience: where it cannot be, there is none."""
    global _place
    try:
        if _place is None:
            _place = find_arguments()
        start, size = _place
        if 0 < size <= MOST_BYTES:
            title = (PREFIX + text).encode()[: size - 1]
            memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(memory, title.ljust(size, b"\0"), start)  # the last byte stays 0: else the environment would be shown too
            finally:
                os.close(memory)
    except (OSError, ValueError, IndexError):
        _place = 0, 0


def find_arguments() -> tuple[int, int]:
    """Return where the kernel looks for this process's arguments, and how many bytes they are; size 0 where it does not say."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    return (start, end - start) if 0 < start < end else (0, 0)
