"""Run the measurements, each in a process of its own, in turns, with a watchdog; and leave nothing of them behind."""

from __future__ import annotations

import compileall
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.bench.adapters import OURS
from tests.bench.rows import opponents_of
from tests.bench.scale import Figures
from tests.bench.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = "from tests.bench.case import main; main()"  # not -m: workers need not import a main module again
CLOSING_S = 10.0
NO_TIME = "no time was left for it"
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Outcome:
    """What became of one contender in one workload: its figures of each round (None: none in that round), and why it gave up."""

    rounds: list[Figures | None] = field(default_factory=list)
    trouble: str | None = None


Outcomes = dict[str, dict[str, Outcome]]  # by workload, by contender


def run(
    workloads: list[str], rounds: int, quick: bool, loops_per_ms: int, tell: Callable[[str], None], row_s: float
) -> Iterator[tuple[str, dict[str, Outcome]]]:
    """Measure all contenders of these workloads, and yield each workload as soon as it is there."""
    prepare()
    for name in workloads:
        yield name, _run_workload(name, rounds, quick, loops_per_ms, tell, monotonic() + row_s)


def prepare() -> None:
    """Be ready to measure."""
    _adopt_orphans()
    _compile()


def _compile() -> None:
    """Have workq compiled, as every installed library is: compiled anew in each measurement, its imports would take twice the time."""
    compileall.compile_dir(ROOT / "workq", quiet=1)
    compileall.compile_dir(ROOT / "tests" / "bench", quiet=1)


def _run_workload(
    name: str, rounds: int, quick: bool, loops_per_ms: int, tell: Callable[[str], None], deadline: float
) -> dict[str, Outcome]:
    """Measure one workload, round by round. After the deadline nothing is begun but what the goals need of the first round."""
    needed = {OURS, *opponents_of(name)}
    outcomes = {contender: Outcome() for contender in WORKLOADS[name].names()}
    for number in range(rounds):
        for contender in _turned(list(outcomes), number):
            outcome = outcomes[contender]
            late = monotonic() > deadline and not (number == 0 and contender in needed)
            if outcome.trouble is not None or late:
                outcome.rounds.append(None)
                if not any(outcome.rounds):
                    outcome.trouble = outcome.trouble or NO_TIME
                continue
            tell(f"{name}, round {number + 1} of {rounds}: {contender}")
            figures, outcome.trouble = measure(name, contender, quick, loops_per_ms)
            outcome.rounds.append(figures)
    return outcomes


def _turned(names: list[str], by: int) -> list[str]:
    """Return the names, each round beginning with another, so that none always follows the same one."""
    by %= len(names)
    return names[by:] + names[:by]


def measure(
    workload: str, contender: str, quick: bool, loops_per_ms: int, *, program: str = PROGRAM, timeout_s: float | None = None
) -> tuple[Figures | None, str | None]:
    """Return the figures of one measurement, or None and what went wrong. The program may be another, to see what becomes of that."""
    timeout_s = timeout_s or WORKLOADS[workload].timeout_s
    with tempfile.TemporaryDirectory(prefix="workq-bench-", ignore_cleanup_errors=True) as folder:
        with open(Path(folder) / "output.txt", "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", program, workload, contender, folder, "quick" if quick else "full", str(loops_per_ms)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(process, Path(folder) / "answer.json", timeout_s)
        finally:
            _end(process)
        return _read(Path(folder) / "answer.json", process.returncode, timeout_s)


def _wait(process: subprocess.Popen[bytes], answer: Path, timeout_s: float) -> None:
    """Wait for the process to end; if it does not, for its answer, and a little for its closing."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        if answer.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLOSING_S)


def _read(answer: Path, returncode: int, timeout_s: float) -> tuple[Figures | None, str | None]:
    if not answer.exists():
        return None, f"hung for {timeout_s:g} s" if returncode == -signal.SIGKILL else f"died with {returncode}"
    told = json.loads(answer.read_text())
    return told.get("figures"), told.get("error")


# ---------------------------------------------------------------- ending


def _adopt_orphans() -> None:
    """Become the parent of what the measured processes leave behind, so that it can be found and ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, its group and whatever else it had started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _wait_for_orphans(2.0)
    for _ in range(20):  # a killed process may leave children of its own
        orphans = _children()
        if not orphans:
            return
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait_for_orphans(1.0)


def _wait_for_orphans(seconds: float) -> None:
    """Reap what ends by itself. The measured process itself has been waited for: all children are orphans of it."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            select.select([], [], [], 0.005)


def _children() -> list[int]:
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found
