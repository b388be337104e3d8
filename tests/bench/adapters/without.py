"""workq with one of its mechanisms switched off, to see what that brings. Changed from outside: no switch for it is in workq itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.adapters.ours import Workq


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One of the things that make workq fast.

    Attributes:
        title: What it is.
        rows: The rows of the table that show it best.
        switch_off: Does without it, in this process, before anything was started.
    """

    title: str
    rows: tuple[str, ...]
    switch_off: Callable[[], None]


class Without(Workq):
    """workq without a mechanism."""

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism

    def prepare(self) -> None:
        super().prepare()
        self._mechanism.switch_off()


def _set(module: str, **values: Any) -> Callable[[], None]:
    def switch_off() -> None:
        import importlib

        for name, value in values.items():
            owner: Any = importlib.import_module(module)
            *path, last = name.split("__")
            for part in path:
                owner = getattr(owner, part)
            assert hasattr(owner, last), f"{module} has no {name}: the mechanism has another form by now"
            setattr(owner, last, value)

    return switch_off


def _settings(**values: Any) -> Callable[[], None]:
    def switch_off() -> None:
        from workq import Controller
        from workq.config import DEFAULTS

        assert Controller.__init__.__kwdefaults__
        Controller.__init__.__kwdefaults__["settings"] = DEFAULTS._replace(**values)

    return switch_off


def _follow(self: Any, ready: Callable[[], bool], timeout_s: float | None) -> bool:
    """Wait for the controller to say that it is over, as the waiters of other pools do."""
    from workq.controller.waiting import Follower

    follower = Follower(ready)
    self._followers.append(follower)
    try:
        while not ready():
            follower.gate.acquire(timeout=1.0)
    finally:
        self._followers.remove(follower)
    return True


def _only_the_controller_reads() -> None:
    from workq.controller.waiting import Lead

    Lead.wait = _follow  # type: ignore[method-assign]
    Lead.wait_lone = lambda self, ready: False  # type: ignore[method-assign]
    Lead.try_pump = lambda self: None  # type: ignore[method-assign]


def _spawn() -> None:
    os.environ["WORKQ_START_METHOD"] = "spawn"


ARRAYS = ("array-1mb", "array-100mb")
MECHANISMS = {
    "batches": Mechanism("several units in a frame", ("queue", "busy-1ms"), _settings(batch_units=1)),
    "credit": Mechanism("a second batch while the first runs", ("queue",), _set("workq.controller.dispatch", LONG_S=0.0)),
    "reading": Mechanism("the thread that waits or queues reads itself", ("queue", "trip"), _only_the_controller_reads),
    "lone": Mechanism(
        "a lone waiter blocks in the worker's own socket",
        ("trip",),
        _set("workq.controller.waiting", Lead__wait_lone=lambda self, ready: False),
    ),
    "row": Mechanism(
        "workers of units that are waited for one by one ring nobody",
        ("trip-one-core",),
        _set("workq.controller.row", Row__count=lambda self, estimate_s: False),
    ),
    "recall": Mechanism("units behind a long one are taken back", ("beside",), _settings(recall_after_s=1e6)),
    "groups": Mechanism("short items of a map travel in groups", ("map",), _set("workq.face.mapping", SHORT_S=0.0)),
    "slices": Mechanism("a range is sent as a range", ("map",), _set("workq.face.mapping", SLICED=frozenset())),
    "segments": Mechanism("large arguments in shared memory", ARRAYS, _set("workq.controller.intake", POSSIBLE=False)),
    "reuse": Mechanism("segments are written again", ARRAYS, _set("workq.transport.segments", MOST_FREE_BYTES=0)),
    "launcher": Mechanism("workers are forked by a launcher", ("worker",), _spawn),
}

WITHOUT: dict[str, Callable[[], Workq]] = {
    f"without-{name}": (lambda mechanism=mechanism: Without(mechanism))  # type: ignore[misc]
    for name, mechanism in MECHANISMS.items()
}

__all__ = ["MECHANISMS", "WITHOUT", "Mechanism"]
