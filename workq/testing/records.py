"""Units, queues and workers that exist in memory only. Units have a script instead of code."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from workq.core.events import QueueId, StopReason, UnitId, WorkerId
from workq.core.states import UNIT_ENDS, UNIT_MOVES, UnitState, advance

U = UnitState


class Script(Enum):
    """What a unit does when it runs."""

    WORK = "work"  # computes for its time
    WAIT = "wait"  # computes for half of it, then waits as long for a lock
    NEST = "nest"  # queues units and waits for them
    TREE = "tree"  # queues units on a queue of its own, waits for them, and runs them itself where it is told to
    DEAF = "deaf"  # computes, and ignores every interrupt
    CRASH = "crash"  # takes its worker with it


@dataclass(slots=True, eq=False)
class MemoryUnit:
    """One unit: where it is, and how often it was begun."""

    id: UnitId
    queue: MemoryQueue
    script: Script
    work_s: float
    children: list[MemoryUnit] = field(default_factory=list)
    state: UnitState = U.QUEUED
    starts: int = 0
    inner: MemoryQueue | None = None
    level: int = 0
    reason: StopReason | None = None

    @property
    def ended(self) -> bool:
        """It has come to one of its ends."""
        return self.state in UNIT_ENDS

    def move(self, move: str) -> None:
        """Make one legal move."""
        self.state = advance(UNIT_MOVES, self.state, move)


@dataclass(slots=True, eq=False)
class MemoryQueue:
    """One queue with its backlog.

    Attributes:
        set_up_fate: Says of each set-up whether it goes well; None: there is none.
        tears_down: Its workers have something to do before they leave it.
        session: It has one worker of its own; when that is gone it is closed.
    """

    id: QueueId
    category: str
    set_up_fate: Callable[[], bool] | None = None
    tears_down: bool = False
    session: bool = False
    backlog: deque[MemoryUnit] = field(default_factory=deque)
    paused: bool = False
    closed: bool = False
    owner: MemoryWorker | None = None


@dataclass(slots=True, eq=False)
class MemoryWorker:
    """One process that is none.

    Attributes:
        allowance: How many more units it may be given; None: any number.
        hand: The units that it was given; the first is the one that runs.
        own: The units that it runs itself while the one before waits for them, the innermost last.
        said_dry: WorkerDry was told, and nothing was given to it since.
        leaving: It was asked to leave, and does so once its hands are empty.
        quota: How many more units it may ever be given; None: any number.
        fit_for: The queues that it is set up for.
        unfit: Its set-up has failed: it begins nothing more.
        life: Changes when what is planned for the running unit no longer holds.
    """

    id: WorkerId
    category: str
    up: bool = False
    queue: MemoryQueue | None = None
    allowance: int | None = 0
    hand: deque[MemoryUnit] = field(default_factory=deque)
    own: list[MemoryUnit] = field(default_factory=list)
    blocked: bool = False
    said_dry: bool = True
    leaving: bool = False
    quota: int | None = None
    fit_for: set[QueueId] = field(default_factory=set)
    unfit: bool = False
    life: int = 0

    @property
    def runs(self) -> MemoryUnit:
        """The unit whose code it is in."""
        return self.own[-1] if self.own else self.hand[0]

    def has_begun(self, unit: MemoryUnit) -> bool:
        """Whether it is in that unit's code, or below it."""
        return unit in self.own or (bool(self.hand) and self.hand[0] is unit)


__all__ = ["MemoryQueue", "MemoryUnit", "MemoryWorker", "Script"]
