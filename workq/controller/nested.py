"""Queues that units make: they live in the parent, and their outcomes go back to the worker whose unit waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workq.controller.loop import Loop
    from workq.controller.records import Worker


class Nested:
    """Belongs to the controller's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def request(self, worker: Worker, payload: Any) -> None:
        """Take in what a unit asks for."""
