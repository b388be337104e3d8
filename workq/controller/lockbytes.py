"""The controller's hand on the page by which workers take free locks without asking: which name has which byte, and which are ours."""

from __future__ import annotations

import os
import time

from workq.controller.records import Worker
from workq.core.locks import Claim, Party
from workq.transport.lockpage import NAMES, Page, held_of

UNASKED = 0  # the ticket of a claim that its holder has not asked for


class LockBytes:
    """Belongs to the controller's thread; ``holder_of`` and ``names`` may be looked at by any."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}  # the byte of each name
        self._ours: set[str] = set()
        self._page: Page | None = None

    def assign(self, name: str) -> None:
        """Give a name its byte: ours first, as nobody else knows of it."""
        if name in self.names or len(self.names) >= NAMES:
            return
        try:
            self._page = self._page or Page.create()
        except OSError:
            return  # no memory, no descriptors: this time it is asked for
        self.names[name] = len(self.names)
        self.own(name)

    def describe(self, name: str) -> str:
        """Return what a worker has to know to take this lock without asking."""
        if self._page is None or name not in self.names:
            return ""
        return f"{self.names[name]} {self._page.fd} {self._page.inode}"

    def own(self, name: str) -> bool:
        """Raise the flag, and take the byte; return False where a worker has it. A name without a byte is ours."""
        byte = self.names.get(name)
        if byte is None or self._page is None or name in self._ours:
            return True
        self._page.flags[byte] = 1
        if not self._page.take(byte):
            return False
        self._ours.add(name)
        return True

    def disown(self, name: str) -> None:
        """Let workers take it without asking: nobody holds it by our leave, and nobody waits."""
        byte = self.names.get(name)
        if byte is None or self._page is None:
            return
        self._page.flags[byte] = 0
        if name in self._ours:
            self._page.give(byte)
            self._ours.discard(name)

    def holder_of(self, name: str) -> int:
        """Return the process that has taken a lock without asking, or 0."""
        return self._page.holder(self.names[name]) if self._page is not None and name in self.names else 0

    def claim_of(self, name: str, worker: Worker, label: str) -> Claim:
        """Return the claim of a worker that has taken a lock without asking."""
        thread, since = held_of(worker.words).get(self.names[name], (UNKNOWN_THREAD, time.monotonic()))
        who = f"unit {label}" if label else worker.name
        if thread > 0:
            who += " (a thread)"
        return Claim((int(worker.number), UNASKED), Party(int(worker.number), thread), who, since)

    def held_by(self, worker: Worker) -> list[str]:
        """Return the names of the locks that a worker had taken without asking, by its board."""
        held = held_of(worker.words)
        return [name for name, byte in self.names.items() if byte in held] if held else []

    def close(self) -> None:
        """Let go of the page."""
        if self._page is not None:
            os.close(self._page.fd)
            self._page = None


UNKNOWN_THREAD = -1  # it has just taken the byte, and not yet said so
