"""The kernel kills a worker for memory: a real one, in a memory cgroup of its own. Needs the right to make one, as in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, application, wait_until

MOUNT = Path("/sys/fs/cgroup")
LIMIT_BYTES = 256 << 20

HUNGRY = """
    import os, sys
    from pathlib import Path

    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))  # its workers are born into the group
    import workq

    def take(megabytes):
        return len(bytearray(b"x") * (megabytes << 20)) >> 20

    if __name__ == "__main__":
        with workq.WorkMgr(1) as wq:
            fed, hungry, after = wq.queue(take, 10), wq.queue(take, 2000), wq.queue(take, 20)
            print(fed.result(), after.result())
            error = hungry.exception()
            print(type(error).__name__, error.halt.signal, error.halt.unit == hungry.label, error.halt.why(), wq.statistics().lost)
            print(error)
"""


def make_group() -> Path:
    """Make a memory cgroup with a limit below our own; skip the test where that is not allowed."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        parent = MOUNT / "memory" / path.lstrip("/") if controllers == "memory" else MOUNT / path.lstrip("/")
        if controllers not in ("memory", ""):
            continue
        group = parent / f"workq-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            limit = group / ("memory.limit_in_bytes" if controllers else "memory.max")
            limit.write_text(str(LIMIT_BYTES))
        except OSError:  # the controller is not there for groups of ours
            group.rmdir()
            continue
        for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):  # it could go on in the swap space
            if (group / name).exists():
                (group / name).write_text(str(LIMIT_BYTES) if "memsw" in name else "0")
        return group
    pytest.skip("no memory cgroup may be made here; the counters are tested in tests/process/test_probe.py")


@pytest.fixture
def group() -> Iterator[Path]:
    made = make_group()
    try:
        yield made
    finally:
        wait_until(lambda: not (made / "cgroup.procs").read_text(), what="the group is empty")  # its launcher may be about to end
        made.rmdir()


def test_a_worker_that_the_kernel_kills_for_memory_is_reported_so_and_the_others_units_run(group: Path) -> None:
    ended = application(HUNGRY, str(group), deadline_s=2 * DEADLINE_S)
    assert ended.returncode == 0, ended.stderr
    fed, error, text, *_ = ended.stdout.splitlines()
    assert fed == "10 20"
    assert error == "WorkerHalted SIGKILL True out of memory 1"
    assert "was ended by SIGKILL, probably out of memory" in text
