"""Starts that fail, and what runs out: every unit ends with a clear error in bounded time, and what is mended works again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, application, wait_gone, wait_until
from tests.system import deeds
from tests.system.held import NEVER_JUDGED
from workq import Category, Controller, LaunchError, WorkMgr
from workq.config import Settings
from workq.process import probe

pytestmark = pytest.mark.slow


# ---------------------------------------------------------------- the restart budget


@contextlib.contextmanager
def broken(category: Category, **settings: float) -> Iterator[WorkMgr]:
    """A queue whose workers cannot start."""
    with Controller(settings=Settings(**settings)) as controller:  # type: ignore[arg-type]
        controller.add_category(category)
        queue = WorkMgr(2, category=category.name, controller=controller)
        try:
            yield queue
        finally:
            queue.close()


INITIALIZERS = [
    ("raise", "LookupError: the initializer has failed"),
    ("exit", "the initializer has left"),
    ("_exit", "exited with code 7"),
    ("die", "was ended by SIGKILL"),
    ("hang", "the initializer hangs"),
]


@pytest.mark.parametrize(("how", "said"), INITIALIZERS)
def test_a_failing_initializer_is_tried_a_bounded_number_of_times_and_its_words_are_told(tmp_path: Path, how: str, said: str) -> None:
    category = Category("broken", initializer=deeds.break_start, initializer_args=(str(tmp_path), how))
    with broken(category, start_timeout_s=1.0 if how == "hang" else 20.0) as wq:
        wq.pause()  # until all are queued
        units = [wq.queue(deeds.pid) for _ in range(20)]
        wq.resume()
        assert len(wait(units, 20).done) == 20
        for unit in units:
            error = unit.exception()
            assert isinstance(error, LaunchError)
            assert said in str(error)
            assert "the initializer" in str(error)
        assert 3 <= (tmp_path / "tries").stat().st_size <= 3 * 3  # three waves, of up to two workers and the one in hand


def test_a_start_that_hangs_says_that_it_was_not_ready_in_time(tmp_path: Path) -> None:
    category = Category("broken", initializer=deeds.break_start, initializer_args=(str(tmp_path), "hang"))
    with broken(category, start_timeout_s=0.1) as wq:
        assert "did not get ready in time" in str(wq.queue(deeds.pid).exception(DEADLINE_S))


def test_a_broken_preload_is_told_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_preload.py").write_text("raise LookupError('while it was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with broken(Category("broken", preload=("broken_preload",))) as wq:
        error = wq.queue(deeds.pid).exception(DEADLINE_S)
    assert isinstance(error, LaunchError)
    assert "Traceback" in str(error)
    assert "LookupError: while it was imported" in str(error)


def test_units_queued_after_the_initializer_was_mended_run(tmp_path: Path) -> None:
    category = Category("broken", initializer=deeds.break_start, initializer_args=(str(tmp_path), "raise"))
    with broken(category) as wq:
        assert isinstance(wq.queue(deeds.pid).exception(DEADLINE_S), LaunchError)
        assert isinstance(wq.queue(deeds.pid).exception(DEADLINE_S), LaunchError)
        (tmp_path / "mended").touch()
        assert [wq.queue(deeds.pid).result(DEADLINE_S) > 0 for _ in range(10)] == [True] * 10


def test_an_initializer_that_breaks_later_hurts_no_worker_that_runs(tmp_path: Path) -> None:
    (tmp_path / "mended").touch()
    category = Category("broken", initializer=deeds.break_start, initializer_args=(str(tmp_path), "raise"))
    with broken(category) as wq:
        worker = wq.queue(deeds.pid).result(DEADLINE_S)
        (tmp_path / "mended").unlink()
        units = [wq.queue(deeds.pid) for _ in range(200)]
        assert {unit.result(DEADLINE_S) for unit in units} == {worker}


def test_a_category_that_cannot_start_leaves_the_others_alone(tmp_path: Path) -> None:
    category = Category("broken", initializer=deeds.break_start, initializer_args=(str(tmp_path), "_exit"))
    with broken(category) as wq, WorkMgr(1, controller=wq.controller) as other:
        bad = [wq.queue(deeds.pid) for _ in range(5)]
        good = [other.queue(abs, -n) for n in range(50)]
        assert [unit.result(DEADLINE_S) for unit in good] == list(range(50))
        assert {type(unit.exception(DEADLINE_S)) for unit in bad} == {LaunchError}


def test_a_unit_whose_nested_units_find_no_worker_ends_all_the_same(tmp_path: Path) -> None:
    """The only worker waits for a unit that no further worker can be started for."""
    (tmp_path / "mended").touch()
    category = Category("broken", initializer=deeds.break_start, initializer_args=(str(tmp_path), "raise"))
    with broken(category) as wq:
        unit = wq.queue(deeds.break_and_queue_inside, str(tmp_path))
        error = unit.exception(DEADLINE_S)
        assert error is None or "the initializer has failed" in str(error)
        (tmp_path / "mended").touch()
        assert wq.queue(deeds.pid).result(DEADLINE_S)


# ---------------------------------------------------------------- the launcher


def test_units_that_wait_run_after_the_launcher_was_killed(tmp_path: Path) -> None:
    with Controller(settings=NEVER_JUDGED) as controller, WorkMgr(2, controller=controller) as wq:
        first = wq.queue(deeds.parent_pid)
        launcher = first.result(DEADLINE_S)
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        pipe = os.open(fifo, os.O_RDWR)
        held = [wq.queue(deeds.wait_in_vain, fifo) for _ in range(2)]
        said = b""
        while len(said) < 2:
            said += os.read(pipe, 2)
        os.close(pipe)
        more = [wq.queue(deeds.parent_pid) for _ in range(50)]
        os.kill(launcher, signal.SIGKILL)
        launchers = {unit.result(DEADLINE_S) for unit in more}
        assert len(launchers) == 1
        assert launchers != {launcher}
        for unit in held:
            error = unit.exception(DEADLINE_S)
            assert isinstance(error, workq.WorkerHalted)
            wait_gone(error.pid)


def test_the_launcher_may_be_killed_again_and_again() -> None:
    with Controller() as controller, WorkMgr(1, controller=controller) as wq:
        seen = set()
        for _ in range(8):
            launcher = wq.options(retries=3).queue(deeds.parent_pid).result(DEADLINE_S)
            seen.add(launcher)
            os.kill(launcher, signal.SIGKILL)
            wait_gone(launcher)
        assert len(seen) == 8


# ---------------------------------------------------------------- out of descriptors, out of processes

NO_DESCRIPTORS = """
    import json, os, resource, sys, workq, workq.config

    def open_descriptors():
        return len(os.listdir("/proc/self/fd")) - 1

    def try_it(more):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        controller = workq.Controller(settings=workq.config.Settings(start_backoff_s=0.002))
        wq = workq.WorkMgr(1, controller=controller)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + more, hard))
        try:
            said = repr(wq.queue(os.getpid).exception(60))
        except workq.LaunchError as error:
            said = repr(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        later = wq.queue(os.getpid).result(60) > 0
        wq.close()
        controller.close()
        return said, later

    if __name__ == "__main__":
        try_it(1000)
        before = open_descriptors()
        said = {more: try_it(more) for more in range(int(sys.argv[1]), int(sys.argv[2]))}
        zombies = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        print(json.dumps([said, open_descriptors() - before, zombies]))
"""


def test_no_descriptors_left_is_a_launch_error_and_it_works_later() -> None:
    """Whichever of the many descriptors of a start is the one that is not to be had."""
    ended = application(NO_DESCRIPTORS, "0", "32", deadline_s=60)
    assert ended.returncode == 0, ended.stderr
    said, left, zombies = json.loads(ended.stdout)
    assert zombies == []
    assert all(later for _, later in said.values())
    failed = [text for text, _ in said.values() if text != "None"]
    assert len(failed) > 8
    assert all(text.startswith("LaunchError") and "Too many open files" in text for text in failed), failed
    assert left <= 0


NO_PROCESSES = """
    import json, os, resource, sys
    import cloudpickle, ctypes, faulthandler, workq.engines.local, workq.hosts.nested, workq.manager, workq.process.launcher
    import workq, workq.worker.main

    def try_it(limit):
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        with workq.Controller(start_method="fork") as controller:  # another user may not be able to read the interpreter
            wq = workq.WorkMgr(1, controller=controller)
            resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
            try:
                said = repr(wq.queue(os.getpid).exception(60))
            except workq.LaunchError as error:
                said = repr(error)
            resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
            wq.close()
        with workq.Controller(start_method="fork") as controller, workq.WorkMgr(1, controller=controller) as wq:
            return said, wq.queue(os.getpid).result(60) > 0

    if __name__ == "__main__":
        workq.Controller, workq.WorkMgr, workq.LaunchError, workq.WorkerHalted
        os.chdir("/")
        os.setgid(65534)
        os.setuid(65534)
        print(json.dumps([try_it(limit) for limit in range(1, 9)]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user of whom nothing else runs")
def test_no_processes_left_is_a_launch_error_and_it_works_later() -> None:
    ended = application(NO_PROCESSES, deadline_s=60)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert all(later for _, later in said)
    failed = [text for text, _ in said if text != "None"]
    assert len(failed) >= 2
    assert all(text.startswith("LaunchError") for text in failed), failed


# ---------------------------------------------------------------- out of memory


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A memory cgroup with this limit; the test is skipped where we may make none."""
    parent, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not parent.is_dir():
        parent, limit = Path("/sys/fs/cgroup"), "memory.max"
    folder = parent / f"workq-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        try:
            (folder / limit).write_text(str(limit_bytes))
        except OSError as error:
            pytest.skip(f"memory cannot be limited here: {error}")
        yield folder
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), what="the group is empty")  # its launcher may be about to end
        folder.rmdir()


def test_a_worker_that_the_kernel_kills_for_memory_loses_its_unit_alone_and_says_why() -> None:
    code = """
        import os, sys, workq

        def eat():
            eaten = []
            while True:
                eaten.append(bytearray(b"x" * (8 << 20)))

        if __name__ == "__main__":
            with open(sys.argv[1], "w") as group:
                group.write(str(os.getpid()))
            with workq.WorkMgr(2) as wq:
                units = [wq.queue(abs, -n) for n in range(50)]
                hungry = wq.queue(eat)
                units += [wq.queue(abs, -n) for n in range(50)]
                print([unit.result() for unit in units] == 2 * list(range(50)))
                print(hungry.exception())
    """
    with memory_group(200 << 20) as folder:
        ended = application(code, str(folder / "cgroup.procs"))
    right, said, *_ = ended.stdout.splitlines()
    assert right == "True"
    assert "was ended by SIGKILL, probably out of memory in unit Default-1:51 eat" in said
    assert ended.returncode == 0, ended.stderr


def test_a_kill_is_called_probably_out_of_memory_only_where_the_counter_grew() -> None:
    """The counter of this machine does not grow for a SIGKILL that we send ourselves."""
    before = probe.oom_kills(os.getpid())
    with WorkMgr(1) as wq:
        error = wq.queue(deeds.log_and_die, 0).exception(DEADLINE_S)
    assert isinstance(error, workq.WorkerHalted)
    if probe.oom_kills(os.getpid()) == before:
        assert not error.halt.probably_out_of_memory
        assert "out of memory" not in str(error)


@pytest.mark.parametrize(
    ("layout", "file", "text"),
    [
        ("0::/jobs\n", "jobs/memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("7:memory:/jobs\n", "memory/jobs/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_the_out_of_memory_counter_is_read_from_the_cgroup(tmp_path: Path, layout: str, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = probe.counters_of(layout.encode(), str(tmp_path))
    assert probe.first_value(found) == 2
    path.write_text(text.replace("oom_kill 2", "oom_kill 3"))
    assert probe.first_value(found) == 3
