"""What the controller's thread waits with: epoll, or poll where the system has none.

Always watched are the controller's bell and all that the engine hears by; the sockets of workers as long as there is a reason to.
"""

from __future__ import annotations

import select
import selectors
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from workq.engines.protocol import Engine

READ, WRITE = select.POLLIN, select.POLLOUT  # epoll has the same numbers


class Poller(Protocol):
    """Belongs to the controller's thread."""

    def watch_once(self, fd: int, mask: int) -> None:
        """Say once when it can be read or written; then it has to be asked for again."""

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """Wait until something can be said, and say it; nothing after ``timeout_s``, which may be -1 for never."""

    def close(self) -> None:
        """Give back what it holds."""


class EpollPoller:
    """By epoll: its price does not depend on how many descriptors are watched."""

    def __init__(self, bell_fd: int, engine_fd: int) -> None:
        self._epoll = select.epoll()
        self._epoll.register(bell_fd, READ)
        self._epoll.register(engine_fd, READ)
        self.poll = self._epoll.poll
        self.close = self._epoll.close

    def watch_once(self, fd: int, mask: int) -> None:
        try:
            self._epoll.modify(fd, mask | select.EPOLLONESHOT)
        except FileNotFoundError:
            self._epoll.register(fd, mask | select.EPOLLONESHOT)


class PollPoller:
    """By poll, which knows neither "once" nor a descriptor that stands for several: so each wait has a list of its own."""

    def __init__(self, bell_fd: int, engine: Engine) -> None:
        self._bell_fd = bell_fd
        self._engine = engine
        self._once: dict[int, int] = {}

    def watch_once(self, fd: int, mask: int) -> None:
        self._once[fd] = mask

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._bell_fd, READ)
        for fd, mask in self._once.items():
            poll.register(fd, mask)
        for fd, events in self._engine.watched():
            poll.register(fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
        ready = poll.poll(-1 if timeout_s < 0 else timeout_s * 1000)
        for fd, _ in ready:
            self._once.pop(fd, None)
        return ready

    def close(self) -> None:
        self._once.clear()


def make(bell_fd: int, engine: Engine) -> Poller:
    """Return the best that there is."""
    if hasattr(select, "epoll") and engine.fileno() >= 0:
        return EpollPoller(bell_fd, engine.fileno())
    return PollPoller(bell_fd, engine)
