"""Every limit and time-out, with its unit in its name. Values, never read from the environment at import."""

from __future__ import annotations

from functools import wraps
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """The settings of a controller. All have defaults that fit most applications.

    Each time is in seconds, each size in bytes.

    Raises:
        ArgumentError: A value is not allowed; the message names it.
    """

    # -- workers
    idle_timeout_s: float = 30.0  # an unused worker ends after this
    linger_s: float = 0.05  # a worker stays with a queue that has run dry for this long
    start_timeout_s: float = 20.0  # from the launch of a worker until it says ready
    start_tries: int = 3  # failed starts in a row before the category's units fail
    start_backoff_s: float = 0.05  # before the second try; doubled at each further one
    heartbeat_s: float = 1.0
    stalled_after_s: float = 3.5  # a worker without a heartbeat for this long is reported as stalled

    slow_after_s: float = 1.0  # a unit that has run for longer is told of, once, if others of its function
    slow_factor: float = 10.0  # took far less: if it has run for so many times what 99 of 100 of them needed,
    slow_after_units: int = 20  # as soon as so many have ended

    # -- stopping
    grace_s: float = 0.01  # the very short wait before an interrupt: the unit may be about to end
    interrupt_repeat_s: float = 0.03  # the exception can be swallowed by a __del__, so it is sent again
    close_timeout_s: float = 5.0  # a worker that was asked to leave is killed after this
    inactive_check_s: float = 10.0  # between two looks for queues that nobody can reach any more
    exit_drain_s: float = 60.0  # queues with at_exit="drain" are waited for this long when the interpreter ends

    # -- retries
    poisoned_after: int = 3  # workers that have ended under one unit; then it is tried no more, whatever retries are left

    # -- the hot path
    batch_target_s: float = 0.001  # measured work in one batch
    batch_units: int = 512
    batch_bytes: int = 96 << 10
    quantum_units: int = 16  # how many units a worker may take from one queue while others wait
    recall_after_s: float = 0.002  # silence of a worker before the units behind its running one are taken back
    long_after_s: float = 0.05  # a unit runs for so long: those behind it are taken back also where no other worker could run them yet
    slowest_bytes_per_s: float = 20e6  # a worker that reads its arguments so slowly is not taken for silent
    silent_after_s: float = 0.1  # a worker has not begun what it was sent for so long: others may run it

    # -- memory and CPU time
    limits_look_s: float = 0.02  # between two looks at a unit with memory_mb, and at least at one with cpu_s
    memory_look_s: float = 0.1  # between two looks at a worker with max_memory_mb that serves a queue

    # -- blocked workers
    sample_s: float = 0.01  # between two looks at a worker that may be blocked

    # -- output and logs
    output_bytes: int = 1 << 20  # of one unit; what is beyond is cut, with a line that says so
    stderr_lines: int = 20  # the last lines that a halt shows

    # -- bounds of what is kept
    uncollected_units: int = 1_000_000  # ended units kept for sync() and wait_one(); then the oldest successes go
    halts_kept: int = 1000


DEFAULTS = Settings()

MAY_BE_0 = {
    *("idle_timeout_s", "linger_s", "start_backoff_s", "slow_after_s", "grace_s", "close_timeout_s", "exit_drain_s"),
    *("recall_after_s", "long_after_s", "output_bytes", "stderr_lines", "halts_kept"),
}
_unchecked: Any = Settings.__new__


@wraps(_unchecked)
def _checked(kind: type[Settings], *args: Any, **kwargs: Any) -> Settings:
    """Make settings, and raise where a value is not allowed. A named tuple has no room for a constructor of its own."""
    made: Settings = _unchecked(kind, *args, **kwargs)
    from workq.given.arguments import check_amount, check_seconds, check_whole  # not needed for the defaults, which workers load too

    for name, value, default in zip(made._fields, made, DEFAULTS, strict=True):
        if isinstance(default, int):
            check_whole(name, value, least=int(name not in MAY_BE_0))
        elif name.endswith("_s"):
            check_seconds(name, value, above=name not in MAY_BE_0)
        else:
            check_amount(name, value, "times")
    return made


Settings.__new__ = _checked  # type: ignore[method-assign,assignment]
Settings._make = classmethod(lambda kind, values: kind(*values))  # type: ignore[method-assign,assignment]  # by which `_replace` makes it
