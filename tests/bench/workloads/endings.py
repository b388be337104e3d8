"""Workers that die and units that are ended: how soon others run, and what is lost."""

from __future__ import annotations

import os
import signal
from time import monotonic

from tests.bench.adapters import Library
from tests.bench.calls import after_the_interrupt, mark, now, run_until_interrupted, run_until_released
from tests.bench.scale import Figures, Scale
from tests.bench.waiting import wait_for_running

QUEUED = 20


def kill(library: Library, scale: Scale) -> Figures:
    """Two workers are busy and units wait; one worker is killed. When does the first of them run, and how many never do?"""
    library.start_warm(2, scale.loops_per_ms)
    folder = str(scale.folder)
    survivor = [library.submit(run_until_released, folder) for _ in range(2)]
    victims = wait_for_running(folder, 2)
    queued = [library.submit(now) for _ in range(QUEUED)]
    killed_at = monotonic()
    os.kill(victims[0], signal.SIGKILL)
    beginnings = _outcomes(library, queued, killed_at + 5.0)
    mark(folder, "released")
    del survivor
    figures = {"lost": float(QUEUED - len(beginnings))}
    if beginnings:
        figures["next_ms"] = (min(beginnings) - killed_at) * 1000
    return figures


def _outcomes(library: Library, handles: list[object], deadline: float) -> list[float]:
    """Return the results of those that have one by the deadline."""
    results = []
    for handle in handles:
        try:
            results.append(library.outcome(handle, max(0.01, deadline - monotonic())))
        except BaseException as error:  # whatever a library says: the unit has no result
            if isinstance(error, KeyboardInterrupt):
                raise
    return results


def cancel(library: Library, scale: Scale) -> Figures:
    """A running unit is cancelled; the next one of the same worker, or of the one in its place, says when it runs."""
    library.start_warm(1, scale.loops_per_ms)
    after_cancel, after_interrupt = [], []
    for number in range(scale.pick(15, 3)):
        folder = scale.folder / str(number)
        folder.mkdir()
        victim = library.submit(run_until_interrupted, str(folder))
        wait_for_running(str(folder), 1)
        follower = library.submit(after_the_interrupt)
        cancelled_at = monotonic()
        library.cancel(victim)
        interrupted_at, ran_at = library.outcome(follower, 10.0)
        after_cancel.append(ran_at - cancelled_at)
        if interrupted_at is not None:
            after_interrupt.append(ran_at - interrupted_at)
    figures = {"after_cancel_ms": _median(after_cancel) * 1000}
    if after_interrupt:
        figures["after_interrupt_ms"] = _median(after_interrupt) * 1000
    return figures


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
