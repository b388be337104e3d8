"""The port of an engine: what the controller asks of whatever makes its workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from socket import socket as Socket  # noqa: N812  # the lane has a field of that name
from typing import Protocol

from workq.core.fact import fact, record
from workq.transport.board import Board


@record
class Lane:
    """All that the parent holds of one worker process. Owned by the controller; closed by it once the worker has ended."""

    number: int
    name: str  # worker_ and the first 8 digits of process_info_id
    process_info_id: str  # a uuid4, new at each start
    socket: Socket  # our end of the private socketpair
    peer: Socket  # the worker's end, kept open here to be able to wake a reader of ours
    board: Board
    output_fd: int  # read end of the pipe that is its descriptor 1, non-blocking
    error_fd: int  # the same for descriptor 2
    pid: int = 0  # 0 until Started
    pidfd: int = -1  # -1 until Started, or where the platform has none

    def close(self) -> None:
        """Close every descriptor. Safe to call twice."""
        descriptors = self.output_fd, self.error_fd, self.pidfd
        self.output_fd = self.error_fd = self.pidfd = -1
        for close in (self.socket.close, self.peer.close, self.board.close):
            with contextlib.suppress(OSError):  # the application has closed all that it found
                close()
        for descriptor in descriptors:
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)


@fact
class Started:
    """The process exists: ``pid`` and ``pidfd`` of the lane are set."""

    number: int


@fact
class StartFailed:
    """The process could not be made (no processes left, the launcher cannot be started); nothing of it exists."""

    number: int
    why: str


@fact
class Exited:
    """The process has ended and was reaped. ``code`` is an exit code, or minus the number of a signal, or None if unknown."""

    number: int
    code: int | None
    peak_rss_bytes: int = 0


EngineEvent = Started | StartFailed | Exited


class Engine(Protocol):
    """Makes worker processes and ends them. Called by the controller's thread only, but for ``interrupt`` and ``kill``."""

    def start(self, number: int) -> Lane:
        """Begin to start a worker; never waits. Started, StartFailed or Exited will follow. OSError: no descriptors, no memory."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while ``events()`` has something. It never changes. -1: the system has none such."""

    def watched(self) -> Iterable[tuple[int, int]]:
        """Return the descriptors that ``events()`` looks at now, each with what for (see ``selectors``): where there is no such one."""

    def events(self) -> Sequence[EngineEvent]:
        """Return what has happened since the last call, in order, without waiting."""

    def next_deadline(self) -> float | None:
        """Return when (time.monotonic) to call ``events()`` even if nothing became readable, or None."""

    def interrupt(self, lane: Lane) -> None:
        """Send the interrupt signal to the worker's process; no error if it has ended."""

    def kill(self, lane: Lane) -> None:
        """SIGKILL the worker and its process group, and sweep what it started and what left the group; no error if gone."""

    def close(self, deadline: float) -> None:
        """End every process that is left, by time.monotonic() ``deadline`` at the latest, and close every descriptor."""
