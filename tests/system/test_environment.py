"""Environment variables and what beats them; the start methods; what ps shows; how the logger behaves."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import application, start_application, wait_gone
from tests.system import deeds
from workq import ArgumentError, Controller, WorkMgr
from workq.given import environment

METHODS = ["launcher", "fork", "spawn"]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Logger workq, as it is before anybody has said anything."""
    one = logging.getLogger("workq")
    before, one.level = one.level, logging.NOTSET
    yield one
    one.setLevel(before)


def command_line(pid: int | str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


# ---------------------------------------------------------------- start methods


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_workers_of_each_start_method_work_are_told_apart_by_ps_and_are_replaced(method: str, tmp_path: Path) -> None:
    with Controller(start_method=method) as controller, WorkMgr(1, controller=controller) as wq:
        unit = wq.queue(os.getsid, 0)
        session, parent = unit.result(), wq.queue(os.getppid).result()
        assert unit.worker is not None
        pid = unit.worker.pid
        assert session == pid
        assert command_line(pid) == f"workq {unit.worker.name} of {os.getpid()}"
        assert command_line(parent) == f"workq launcher of {os.getpid()}"
        with pytest.raises(workq.WorkerHalted):
            wq.queue(os._exit, 3).result()
        assert wq.queue(os.getpid).result() != pid
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        slow = wq.queue(deeds.wait_in_vain, fifo)
        with open(fifo, "rb") as waiting:
            assert waiting.read(1)
            assert slow.cancel()
            with pytest.raises(workq.UnitCancelled):
                slow.result()
        assert wq.queue(len, "four").result() == 4


@pytest.mark.slow
def test_a_spawned_worker_is_a_fresh_interpreter_and_finds_the_script() -> None:
    ended = application(
        """
        import sys
        import workq
        LOADED = "seen when imported"
        def look(): return LOADED, "json" in sys.modules, sys.argv[1:]
        if __name__ == "__main__":
            import json
            with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq:
                print(controller.start_method, wq.queue(look).result())
        """,
        "an argument",
        WORKQ_START_METHOD="spawn",
    )
    assert (ended.stdout, ended.stderr) == ("spawn ('seen when imported', False, ['an argument'])\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["application", "launcher"])
def test_spawned_workers_and_what_they_started_die_with_the_application_and_with_the_launcher(victim: str) -> None:
    with start_application(
        """
        import os, select, subprocess, sys, workq
        def start():
            child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
            print(os.getppid(), os.getpid(), child.pid, flush=True)
            workq.flush()
            child.wait()
        if __name__ == "__main__":
            wq = workq.WorkMgr(1, output="discard")
            unit = wq.queue(start)
            while not unit.output: select.select([], [], [], 0.005)
            print(unit.output, flush=True)
            print(type(unit.exception()).__name__, wq.queue(len, "four").result(), flush=True)
        """,
        WORKQ_START_METHOD="spawn",
    ) as app:
        launcher, worker, child = map(int, app.line().split())
        os.kill(app.pid if victim == "application" else launcher, signal.SIGKILL)
        for pid in (worker, child):
            wait_gone(pid)
        if victim == "launcher":
            ended = app.finish()
            assert ended.stdout.split() == ["WorkerHalted", "4"]


def test_an_entry_point_that_cannot_be_loaded_is_told_of_by_a_spawned_worker(capfd: pytest.CaptureFixture[str]) -> None:
    from tests.process.harness import Pool
    from workq.engines.protocol import Started

    with Pool(start_method="spawn", entry_point="no_such_module:run") as pool:
        worker = pool.begin()
        assert isinstance(pool.wait_event(0, Started), Started)
        assert worker.wait_exited().code == 1
        assert "No module named 'no_such_module'" in worker.stderr()


@pytest.mark.parametrize("value", ["threads", "", 7])
def test_a_start_method_that_does_not_exist_is_refused_at_the_call(value: object) -> None:
    with pytest.raises(ArgumentError, match="start_method must be 'launcher', 'fork', 'spawn' or None, not"):
        Controller(start_method=value)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the variables


def test_the_environment_names_the_start_method_and_an_argument_beats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.start_method() == "launcher"
    monkeypatch.setenv("WORKQ_START_METHOD", "spawn")
    assert Controller().start_method == "spawn"
    assert Controller(start_method="fork").start_method == "fork"
    monkeypatch.setenv("WORKQ_START_METHOD", "threads")
    with pytest.raises(ArgumentError, match="WORKQ_START_METHOD must be 'launcher', 'fork' or 'spawn', not 'threads'"):
        Controller()
    assert Controller(start_method="launcher").start_method == "launcher"


def test_the_environment_names_the_log_level_and_an_argument_beats_it(monkeypatch: pytest.MonkeyPatch, logger: logging.Logger) -> None:
    monkeypatch.setenv("WORKQ_LOG_LEVEL", "error")
    Controller()
    assert logger.level == logging.ERROR
    Controller(log_level="INFO")
    assert logger.level == logging.INFO
    Controller(log_level=15)
    assert logger.level == 15
    Controller()
    assert logger.level == 15, "what the program has set beats the environment"
    monkeypatch.setenv("WORKQ_LOG_LEVEL", "loud")
    with pytest.raises(ArgumentError, match="WORKQ_LOG_LEVEL must be one of DEBUG, INFO"):
        Controller()
    for wrong in ("loud", True, -1, 1.5):
        with pytest.raises(ArgumentError, match="log_level must be one of DEBUG, INFO"):
            Controller(log_level=wrong)  # type: ignore[arg-type]


def test_the_environment_names_the_most_workers_and_an_argument_beats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKQ_MAX_WORKERS", "3")
    category = Controller().category("Default")
    assert (category.default_workers, category.max_workers, category.max_active_workers) == (3, 3, 3)
    assert workq.Category("mine", max_workers=5).max_workers == 5
    for wrong in ("0", "many", "-1", "1.5"):
        monkeypatch.setenv("WORKQ_MAX_WORKERS", wrong)
        with pytest.raises(ArgumentError, match="WORKQ_MAX_WORKERS must be a whole number of at least 1"):
            Controller()


@pytest.mark.slow
def test_the_log_level_holds_in_the_workers_too() -> None:
    ended = application(
        """
        import logging
        import workq
        def levels(): return logging.getLogger("workq").level, logging.getLogger("workq").isEnabledFor(logging.INFO)
        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                print(wq.queue(levels).result())
        """,
        WORKQ_LOG_LEVEL="WARNING",
    )
    assert (ended.stdout, ended.stderr) == ("(30, False)\n", "")


# ---------------------------------------------------------------- the logger


@pytest.mark.slow
def test_the_logger_says_life_cycle_at_debug_a_force_kill_at_warning_and_a_halt_at_error(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG, "workq")
    with Controller() as controller, WorkMgr(1, controller=controller, delete_timeout=0.0) as wq:
        wq.queue(os.getpid).result()
        with pytest.raises(workq.WorkerHalted):
            wq.queue(os._exit, 3).result()
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        deaf = wq.queue(deeds.ignore_interrupts, fifo)
        with open(fifo, "rb") as waiting:
            assert waiting.read(1)
        deaf.cancel()
        with pytest.raises(workq.UnitCancelled):
            deaf.result()
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "workq"]
    assert any(level == "DEBUG" and " started, pid " in text for level, text in said)
    assert [text.split(" is killed: ")[1][:9] for level, text in said if level == "WARNING"] == ["its unit "]
    assert ["exited with code 3" in text for level, text in said if level == "ERROR"] == [True]


@pytest.mark.slow
def test_the_logger_has_a_null_handler_and_the_root_logger_is_left_alone() -> None:
    ended = application(
        """
        import logging, os
        import workq
        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                print(type(wq.queue(os._exit, 3).exception()).__name__)
            print([type(one).__name__ for one in logging.getLogger("workq").handlers], logging.getLogger().handlers)
        """
    )
    assert (ended.stdout, ended.stderr) == ("WorkerHalted\n['NullHandler'] []\n", "")
