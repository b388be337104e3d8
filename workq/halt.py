"""What is known of a worker that ended by itself, and the exception that tells it.

Loaded when it is first needed (``workq.errors`` has both names): the executor's ``BrokenProcessPool``, which a ``WorkerHalted`` is,
brings half of ``multiprocessing`` with it, and most programs never see one.
"""

from __future__ import annotations

from dataclasses import dataclass

from workq.attempt import Attempt, listed
from workq.errors import UnitFailed

try:
    from concurrent.futures.process import BrokenProcessPool
except RuntimeError:  # the interpreter ends and it cannot be loaded any more; so nobody has its name to catch it by
    from concurrent.futures import BrokenExecutor as BrokenProcessPool  # type: ignore[assignment]

STACK_LINES = 12  # that a message shows; ``Halt.stack`` has them all


@dataclass(frozen=True, slots=True, repr=False)
class Halt:
    """One record for one worker that ended by itself: who, how, and with what.

    Attributes:
        worker: The worker's name, ``worker_`` and the first 8 digits of its ``process_info_id``.
        pid: Its process number.
        process_info_id: The uuid4 of this very process, new at each start.
        category: The category that it served.
        phase: What it was doing: ``"start"``, ``"idle"``, ``"setup"`` (of its queue, before the first unit of that), ``"unit"`` or
            ``"exit"``.
        exit_code: Its exit code, or None where a signal ended it or the code is not known.
        signal: The name of the signal that ended it (``"SIGKILL"``), or None.
        unit: The label of the unit that it ran, or was to run after the setup, or None.
        run_time_s: How long that unit had run, seconds.
        peak_rss_bytes: The most memory that it ever held, bytes.
        stderr: The last lines that it wrote to stderr.
        stack: The Python stack that faulthandler wrote, or an empty text.
        probably_out_of_memory: The kernel's out-of-memory counter grew, and the signal was a SIGKILL that workq did not send.
        stalled: True for a worker that lives, but whose heartbeat has stopped.
        queue: The name of the queue of that unit, or None.
    """

    worker: str
    pid: int
    process_info_id: str
    category: str
    phase: str
    exit_code: int | None = None
    signal: str | None = None
    unit: str | None = None
    run_time_s: float = 0.0
    peak_rss_bytes: int = 0
    stderr: str = ""
    stack: str = ""
    probably_out_of_memory: bool = False
    stalled: bool = False
    queue: str | None = None

    def reason(self) -> str:
        """Return how it ended, in a few words."""
        if self.stalled:
            return "has stopped beating"
        if self.signal and self.probably_out_of_memory:
            return f"was ended by {self.signal}, probably out of memory"
        if self.signal:
            return f"was ended by {self.signal}"
        if self.exit_code is None:
            return "ended, and its launcher was not there to say how"
        return f"exited with code {self.exit_code}"

    def why(self) -> str:
        """Return why in a word or two, the same for all that ended alike: ``"SIGKILL"``, ``"out of memory"``, ``"exit code 3"``."""
        if self.probably_out_of_memory:
            return "out of memory"
        return self.signal or ("unknown" if self.exit_code is None else f"exit code {self.exit_code}")

    def __repr__(self) -> str:
        return f"<Halt: {str(self).splitlines()[0]}>"

    def __str__(self) -> str:
        lines = [f"{self.worker} (pid {self.pid}) {self.reason()}{self._doing()}"]
        if self.peak_rss_bytes:
            lines[0] += f", peak memory {self.peak_rss_bytes / 2**20:.0f} MiB"
        if self.stderr:
            lines.append("its last lines of stderr:")
            lines += ["  " + line for line in self.stderr.splitlines()]
        if self.stack:
            lines.append("its Python stack:")
            lines += ["  " + line for line in self.stack.splitlines()[:STACK_LINES]]
        return "\n".join(lines)

    def _doing(self) -> str:
        """Return what it did, as its text says it."""
        if self.phase == "setup":
            return f" in the setup of queue {self.queue}, before unit {self.unit}, after {self.run_time_s:.3f} s"
        return f" in unit {self.unit} after {self.run_time_s:.3f} s" if self.unit else f" ({self.phase})"


class WorkerHalted(UnitFailed, BrokenProcessPool):
    """The worker that ran this unit ended under it. No other unit is lost.

    The unit may have run in part; it is not run again unless ``retries`` was asked for.

    Attributes:
        halt: The record of it, see :class:`Halt`.
        attempts: All attempts of the unit, this one last; empty where no retries were asked for.
    """

    def __init__(self, halt: Halt, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(halt, attempts)
        self.halt = halt
        self.attempts = attempts

    def __str__(self) -> str:
        if not self.attempts:
            how_far = "was not begun" if self.halt.phase == "setup" else "may have run in part"
            return f"{self.halt}\nthe unit {how_far}; options(retries=...) runs such units again"
        return f"{self.halt}\nit is not tried again; its attempts:\n{listed(self.attempts)}"

    @property
    def pid(self) -> int:
        """The process number of the worker that halted."""
        return self.halt.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None where a signal ended it."""
        return self.halt.exit_code

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it, or None."""
        return self.halt.signal


class UnitPoisoned(WorkerHalted):
    """The unit has ended worker after worker, and is tried no more, whatever retries are left. ``attempts`` lists them all."""

    def __str__(self) -> str:
        crashes = sum(attempt.outcome == "lost" for attempt in self.attempts)
        head = f"unit {self.halt.unit} is poisoned: {crashes} workers have ended under it, and it is tried no more"
        return f"{head}\n{listed(self.attempts)}\nthe last one: {self.halt}"


for _class in (Halt, WorkerHalted, UnitPoisoned):
    _class.__module__ = "workq.errors"  # where everybody finds them, pickle included

__all__ = ["STACK_LINES", "Halt", "UnitPoisoned", "WorkerHalted"]
