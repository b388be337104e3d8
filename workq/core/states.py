"""Worker and unit states, and the only moves between them.

Rule: a state changes through ``advance`` or not at all. ``docs/states.md`` is written from these tables.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar


class WorkerState(Enum):
    """The states of a worker process. Those from WAITING_TO_ATTACH to RETIRED are the ones that people see."""

    STARTING = "starting"  # launched, has not said ready; serves no queue
    WAITING_TO_ATTACH = "waiting to attach"  # idle, serves no queue
    WAITING_FOR_UNITS = "waiting for units"  # attached to a queue that has nothing to do; short, then released
    ACTIVE = "active"  # holds units of its queue and makes progress
    BLOCKED = "blocked"  # in a unit that waits for a lock, an event or other units; not counted as active
    HELD = "held"  # the worker of a session that has nothing to do; not counted as active
    TEARING_DOWN = "tearing down"  # has left its queue, and does what that wants done at the end
    RETIRED = "retired"  # parked after there were too many; activated again at once
    STOPPING = "stopping"  # asked to leave, or killed
    GONE = "gone"  # the process has ended

    __hash__ = object.__hash__  # members are single objects; Enum's own hash is a Python function, and each event looks up states


class UnitState(Enum):
    """The states of a unit. The last five are ends."""

    QUEUED = "queued"  # in its queue's backlog; the queue holds it
    SENT = "sent"  # behind another unit in a worker's hands; can still be taken back
    RUNNING = "running"  # the worker has announced it
    STOPPING = "stopping"  # running, and asked to end
    RESTING = "resting"  # tried without success, and not yet due to be tried again; its queue holds it
    DONE = "done"  # returned a value
    FAILED = "failed"  # raised, or its result could not be sent
    CANCELLED = "cancelled"  # ended because somebody asked
    TIMED_OUT = "timed out"  # ended by its own time-out
    LOST = "lost"  # its worker halted under it


class IllegalMove(AssertionError):
    """The table has no such move: a bug of ours, never of the caller."""


W, U = WorkerState, UnitState

WORKER_MOVES: dict[tuple[WorkerState, str], WorkerState] = {
    (W.STARTING, "ready"): W.WAITING_TO_ATTACH,
    (W.WAITING_TO_ATTACH, "grant"): W.ACTIVE,
    (W.RETIRED, "grant"): W.ACTIVE,
    (W.WAITING_FOR_UNITS, "grant"): W.ACTIVE,  # of its own queue or, dry as it is, of another
    (W.ACTIVE, "grant"): W.ACTIVE,  # another limit
    (W.ACTIVE, "dry"): W.WAITING_FOR_UNITS,
    (W.BLOCKED, "dry"): W.WAITING_FOR_UNITS,
    (W.WAITING_FOR_UNITS, "take"): W.ACTIVE,
    (W.WAITING_FOR_UNITS, "release"): W.WAITING_TO_ATTACH,
    (W.WAITING_FOR_UNITS, "retire"): W.RETIRED,
    (W.WAITING_TO_ATTACH, "retire"): W.RETIRED,
    (W.ACTIVE, "block"): W.BLOCKED,
    (W.BLOCKED, "unblock"): W.ACTIVE,
    (W.ACTIVE, "hold"): W.HELD,
    (W.BLOCKED, "hold"): W.HELD,
    (W.HELD, "take"): W.ACTIVE,
    (W.HELD, "grant"): W.ACTIVE,
    (W.HELD, "release"): W.WAITING_TO_ATTACH,
    (W.HELD, "tear down"): W.TEARING_DOWN,
    (W.WAITING_FOR_UNITS, "tear down"): W.TEARING_DOWN,
    (W.TEARING_DOWN, "torn down"): W.WAITING_TO_ATTACH,
    (W.TEARING_DOWN, "grant"): W.ACTIVE,  # it was given a unit just before
    (W.STARTING, "stop"): W.STOPPING,
    (W.WAITING_TO_ATTACH, "stop"): W.STOPPING,
    (W.WAITING_FOR_UNITS, "stop"): W.STOPPING,
    (W.RETIRED, "stop"): W.STOPPING,
    (W.HELD, "stop"): W.STOPPING,  # killed: its unit had just ended
    (W.TEARING_DOWN, "stop"): W.STOPPING,  # killed: it takes too long
    (W.ACTIVE, "stop"): W.STOPPING,  # killed with its unit
    (W.BLOCKED, "stop"): W.STOPPING,
    (W.STOPPING, "ready"): W.STOPPING,  # crossed our stop on the way
    (W.STOPPING, "stop"): W.STOPPING,  # asked, then killed
    **{(state, "exit"): W.GONE for state in W if state is not W.GONE},
}

UNIT_MOVES: dict[tuple[UnitState, str], UnitState] = {
    (U.QUEUED, "send"): U.SENT,
    (U.QUEUED, "cancel"): U.CANCELLED,
    (U.QUEUED, "fail"): U.FAILED,  # no worker can be started
    (U.SENT, "start"): U.RUNNING,
    (U.SENT, "recall"): U.QUEUED,
    (U.SENT, "worker gone"): U.QUEUED,  # never started: safe to send again
    (U.RUNNING, "return"): U.DONE,
    (U.RUNNING, "raise"): U.FAILED,
    (U.RUNNING, "stop"): U.STOPPING,
    (U.RUNNING, "worker gone"): U.LOST,
    (U.STOPPING, "stop"): U.STOPPING,
    (U.STOPPING, "return"): U.DONE,  # it finished first: its result is kept
    (U.STOPPING, "raise"): U.FAILED,  # an exception of its own, before the interrupt
    (U.STOPPING, "interrupted by cancel"): U.CANCELLED,
    (U.STOPPING, "interrupted by time-out"): U.TIMED_OUT,
    (U.QUEUED, "time in queue is over"): U.TIMED_OUT,
    (U.FAILED, "retry"): U.QUEUED,  # only where retries were asked for
    (U.TIMED_OUT, "retry"): U.QUEUED,
    (U.LOST, "retry"): U.QUEUED,
    (U.FAILED, "rest"): U.RESTING,  # the same, after a delay
    (U.TIMED_OUT, "rest"): U.RESTING,
    (U.LOST, "rest"): U.RESTING,
    (U.RESTING, "wake"): U.QUEUED,
    (U.RESTING, "cancel"): U.CANCELLED,
    (U.RESTING, "fail"): U.FAILED,
}

UNIT_ENDS = frozenset({U.DONE, U.FAILED, U.CANCELLED, U.TIMED_OUT, U.LOST})
IDLE = frozenset({W.WAITING_TO_ATTACH, W.RETIRED})
ATTACHED = frozenset({W.WAITING_FOR_UNITS, W.ACTIVE, W.BLOCKED, W.HELD})
LEFT_FOR_GOOD = frozenset({W.STOPPING, W.GONE})

State = TypeVar("State", WorkerState, UnitState)


def advance(moves: dict[tuple[State, str], State], state: State, move: str) -> State:
    """Return the state after `move`, or raise IllegalMove."""
    try:
        return moves[state, move]
    except KeyError:
        raise IllegalMove(f"{move!r} is no move from {state}") from None
