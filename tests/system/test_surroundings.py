"""env, cwd, seeds, ranks, threads of numeric libraries, devices and affinity of a category's workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import application
from tests.system import crew
from workq import ArgumentError, Category, Controller, LaunchError, WorkMgr
from workq.given.cpus import usable_cpus

CPUS = sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def queue_of(workers: int = 1, **surroundings: Any) -> Iterator[WorkMgr]:
    """A queue of a category with these surroundings."""
    with Controller() as controller:
        controller.add_category(Category("around", **surroundings))
        with WorkMgr(workers, category="around", controller=controller) as wq:
            yield wq


def side_by_side(wq: WorkMgr, tmp_path: Path, workers: int, function: Callable[[str], Any] = crew.rank_and_wait) -> list[Any]:
    """Return what so many workers that run at the same time say: rank and pid."""
    fifos = [str(tmp_path / f"fifo-{number}") for number in range(workers)]
    for fifo in fifos:
        os.mkfifo(fifo)
    units = [wq.queue(function, fifo) for fifo in fifos]
    writers = [os.open(fifo, os.O_WRONLY) for fifo in fifos]  # each waits for its reader
    for writer in writers:
        os.close(writer)
    for fifo in fifos:
        os.unlink(fifo)
    return [unit.result() for unit in units]


# ---------------------------------------------------------------- env and cwd


def test_env_and_cwd_are_in_place_before_preload_and_initializer(tmp_path: Path) -> None:
    with queue_of(
        env={"CREW": "here"}, cwd=tmp_path, preload=["tests.system.crew_early"], initializer=crew.see_in_initializer, affinity=[CPUS[0]]
    ) as wq:
        assert wq.queue(crew.seen_when_imported).result()["CREW"] == "here"
        assert wq.queue(crew.kept, "seen").result() == ("here", str(tmp_path), [CPUS[0]])
        assert wq.queue(os.getcwd).result() == str(tmp_path)


def test_env_sets_and_unsets_variables_and_leaves_the_applications_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREW_GONE", "1")
    monkeypatch.setenv("CREW_KEPT", "ü")
    with queue_of(env={"CREW_GONE": None, "CREW_NEW": "a=b"}) as wq:
        assert wq.queue(crew.seen, "CREW_GONE", "CREW_KEPT", "CREW_NEW").result() == [None, "ü", "a=b"]
    assert os.environ["CREW_GONE"] == "1"
    assert "CREW_NEW" not in os.environ


def test_a_worker_has_the_applications_environment_of_the_moment_at_which_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREW_OLD", "1")
    with Controller() as controller, WorkMgr(1, controller=controller) as wq:
        assert wq.queue(crew.seen, "CREW_OLD", "CREW_LATE").result() == ["1", None]
        monkeypatch.setenv("CREW_LATE", "late")
        monkeypatch.delenv("CREW_OLD")
        with pytest.raises(workq.WorkerHalted):
            wq.queue(os._exit, 1).result()
        assert wq.queue(crew.seen, "CREW_OLD", "CREW_LATE").result() == [None, "late"]


def test_a_time_zone_in_env_is_heard_by_the_clock() -> None:
    with queue_of(env={"TZ": "XYZ-5"}) as wq:
        assert wq.queue(crew.hour).result() == 5


def test_a_folder_that_is_gone_when_workers_start_is_a_launch_error_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with queue_of(cwd=folder) as wq:
        folder.rmdir()
        error = wq.queue(os.getcwd).exception()
        assert isinstance(error, LaunchError)
        assert str(folder) in str(error)


# ---------------------------------------------------------------- ranks


def test_ranks_count_from_0_and_the_lowest_free_number_is_used_again(tmp_path: Path) -> None:
    with queue_of(3, initializer=crew.see_in_initializer) as wq:
        first = side_by_side(wq, tmp_path, 3)
        assert sorted(rank for rank, _ in first) == [0, 1, 2]
        victim = next(pid for rank, pid in first if rank == 1)
        pidfd = os.pidfd_open(victim)
        os.kill(victim, 9)
        os.close(pidfd)
        again = side_by_side(wq, tmp_path, 3)
        assert sorted(rank for rank, _ in again) == [0, 1, 2]
        assert {pid for rank, pid in again if rank != 1} == {pid for rank, pid in first if rank != 1}
        assert victim not in {pid for _, pid in again}


def test_current_worker_says_who_it_is_in_units_and_initializers_and_nothing_outside() -> None:
    assert workq.current_worker() is None
    with queue_of(initializer=crew.see_in_initializer) as wq:
        unit = wq.queue(workq.current_worker)
        info = unit.result()
        assert info is not None
        assert unit.worker is not None
        assert (info.name, info.pid, info.category, info.rank) == (unit.worker.name, unit.worker.pid, "around", 0)
        assert info.process_info_id.startswith(info.name.removeprefix("worker_"))
        assert repr(info) == f"<{info.name} pid {info.pid} of around, rank 0>"
        assert wq.queue(crew.kept, "rank").result() == 0


def test_in_a_queue_without_workers_the_caller_has_rank_0() -> None:
    with WorkMgr(0) as wq:
        info = wq.queue(workq.current_worker).result()
        assert info is not None
        assert (info.rank, info.pid) == (0, os.getpid())


# ---------------------------------------------------------------- threads of numeric libraries, devices, affinity


def test_numeric_libraries_have_the_usable_cpus_divided_by_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in crew.NAMES:
        monkeypatch.delenv(name, raising=False)
    share = [str(max(1, usable_cpus() // 2))] * 4
    with queue_of(2, preload=["tests.system.crew_early"]) as wq:
        assert wq.queue(crew.seen, *crew.NAMES).result() == share
        assert wq.queue(crew.seen_when_imported).result()["OMP_NUM_THREADS"] == share[0]
    with queue_of(1) as wq:
        assert wq.queue(crew.seen, *crew.NAMES).result() == [str(usable_cpus())] * 4


def test_numeric_libraries_keep_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in crew.NAMES:
        monkeypatch.delenv(name, raising=False)
    with queue_of(env={"OMP_NUM_THREADS": "7"}) as wq:
        assert wq.queue(crew.seen, *crew.NAMES).result() == ["7", None, None, None]  # the others follow OpenMP's
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    with queue_of(1) as wq:
        share = str(usable_cpus())
        assert wq.queue(crew.seen, *crew.NAMES).result() == [share, "5", share, share]


def test_devices_are_dealt_out_by_rank_and_counted_round(tmp_path: Path) -> None:
    with queue_of(3, devices=[4, "GPU-7"], preload=["tests.system.crew_early"]) as wq:
        seen = side_by_side(wq, tmp_path, 3, crew.device_and_wait)
    assert sorted(seen) == [(0, "4", "4"), (1, "GPU-7", "GPU-7"), (2, "4", "4")]


def test_affinity_binds_each_worker_to_its_cpus_by_rank() -> None:
    with queue_of(affinity=[{CPUS[-1]}]) as wq:
        assert wq.queue(crew.cpus).result() == [CPUS[-1]]
        assert wq.queue(crew.seen, "OMP_NUM_THREADS").result() in (["1"], [os.environ.get("OMP_NUM_THREADS")])


def test_affinity_spread_gives_each_worker_one_cpu() -> None:
    category = Category("around", affinity="spread")
    assert category.affinity == tuple((cpu,) for cpu in CPUS)
    with queue_of(affinity="spread") as wq:
        assert wq.queue(crew.cpus).result() == [CPUS[0]]
    assert sorted(os.sched_getaffinity(0)) == CPUS, "the application's own stays"


# ---------------------------------------------------------------- random numbers


@pytest.mark.slow
@pytest.mark.parametrize("method", ["launcher", "fork"])
def test_workers_have_random_numbers_of_their_own_whatever_the_script_has_seeded(method: str) -> None:
    ended = application(
        """
        import random, sys, threading
        import numpy as np
        import workq

        random.seed(1)
        np.random.seed(1)

        def numbers(barrier):
            with open(barrier, "rb") as waiting:
                waiting.read()
            return random.random(), float(np.random.random())

        if __name__ == "__main__":
            import os
            with workq.Controller(start_method=sys.argv[1]) as controller, workq.WorkMgr(2, controller=controller) as wq:
                os.mkfifo("a"); os.mkfifo("b")
                units = [wq.queue(numbers, os.path.abspath(name)) for name in "ab"]
                writers = [os.open(name, os.O_WRONLY) for name in "ab"]
                for writer in writers:
                    os.close(writer)
                drawn = [unit.result() for unit in units]
            assert units[0].worker.pid != units[1].worker.pid
            drawn.append((random.random(), float(np.random.random())))
            print(len({a for a, _ in drawn}), len({b for _, b in drawn}))
        """,
        method,
    )
    assert (ended.stdout, ended.returncode) == ("3 3\n", 0), ended.stderr


# ---------------------------------------------------------------- what is not allowed


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("env", ["A"]),
        ("env", {"A": 1}),
        ("env", {1: "A"}),
        ("env", {"A=B": "1"}),
        ("env", {"": "1"}),
        ("env", {"A": "\0"}),
        ("env", {"WORKQ_WORKER": "me"}),
        ("cwd", 3),
        ("cwd", "/no/such/folder"),
        ("devices", 0),
        ("devices", "0"),
        ("devices", []),
        ("devices", [-1]),
        ("devices", [True]),
        ("devices", [1.5]),
        ("affinity", "spred"),
        ("affinity", 0),
        ("affinity", []),
        ("affinity", [[]]),
        ("affinity", [[99999]]),
        ("affinity", ["0"]),
        ("affinity", [True]),
        ("affinity", [["0"]]),
        ("affinity", [None]),
    ],
)
def test_surroundings_that_are_not_allowed_are_refused_at_the_call_by_name(argument: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"^{argument}"):
        Category("around", **{argument: value})  # type: ignore[arg-type]


def test_devices_and_their_variable_cannot_both_be_given() -> None:
    with pytest.raises(ArgumentError, match="CUDA_VISIBLE_DEVICES"):
        Category("around", env={"CUDA_VISIBLE_DEVICES": "0"}, devices=[0])


def test_what_the_caller_changes_afterwards_in_env_is_not_seen() -> None:
    env: dict[str, str | None] = {"A": "1"}
    category = Category("around", env=env)
    env["A"] = "2"
    assert category.env == {"A": "1"}
