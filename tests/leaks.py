"""What a test must not leave behind: processes, threads, descriptors, shared memory, temporary files."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from tests.support import DEADLINE_S, wait_until


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that this process holds at one moment, by name."""

    processes: frozenset[str]
    threads: frozenset[str]
    descriptors: frozenset[str]
    shared_memory: frozenset[str]
    temporary_files: frozenset[str]

    @classmethod
    def now(cls) -> Holdings:
        """Look."""
        return cls(_processes(), _threads(), _descriptors(), _names("/dev/shm"), _names(tempfile.gettempdir()))

    def beyond(self, before: Holdings) -> dict[str, list[str]]:
        """Return what is here and was not there before, by kind."""
        new = {field.name: sorted(getattr(self, field.name) - getattr(before, field.name)) for field in fields(self)}
        return {kind: names for kind, names in new.items() if names}


def wait_for_no_more_than(before: Holdings, deadline_s: float = DEADLINE_S) -> None:
    """Wait until all that is new has gone; at the deadline say what has not."""
    gc.collect()
    try:
        wait_until(lambda: not Holdings.now().beyond(before), deadline_s)
    except AssertionError:
        left = Holdings.now().beyond(before)
        if left:
            raise AssertionError(f"left behind: {left}") from None


def _processes() -> frozenset[str]:
    rows = set()
    for process in psutil.Process().children(recursive=True):
        try:
            rows.add(f"{process.pid} {process.name()} {' '.join(process.cmdline())[:80]}")
        except psutil.NoSuchProcess:
            continue
    return frozenset(rows)


def _threads() -> frozenset[str]:
    mine = (thread for thread in threading.enumerate() if not thread.name.startswith("pytest_timeout"))  # a new one for each test
    return frozenset(f"{thread.native_id} {thread.name}" for thread in mine)


def _descriptors() -> frozenset[str]:
    rows = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            rows.add(f"{name} {os.readlink('/proc/self/fd/' + name)}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return frozenset(rows)


def _names(folder: str) -> frozenset[str]:
    """Names of files that could be ours: other programs write into these folders too."""
    return frozenset(path.name for path in Path(folder).glob("*workq*"))
