"""setup and teardown: what each worker does before its first and after its last unit of a queue."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, tries, wait_gone, wait_readable, wait_until
from tests.system import crew
from tests.system.held import between_turns
from workq import Controller, PicklingError, QueueClosed, SetupFailed, TooLate, UnitCancelled, UnitTimeout, WorkerHalted, WorkMgr
from workq.config import DEFAULTS


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes")


@pytest.fixture
def controller() -> Iterator[Controller]:
    with Controller() as one:
        yield one


def words(path: str) -> Counter[str]:
    return Counter(line.split()[0] for line in notes(path))


def notes(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def fifo_of(tmp_path: Path) -> tuple[str, int]:
    """Return a fifo and our end of it, at which whoever says something is heard."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    return fifo, os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


# ---------------------------------------------------------------- when they run


def test_setup_runs_once_in_each_worker_before_its_first_unit_of_the_queue(controller: Controller, path: str) -> None:
    with WorkMgr(2, controller=controller) as wq:
        wq.setup(crew.set_up, path, 5)
        units = [wq.queue(crew.kept, "value") for _ in range(50)]
        assert {unit.result() for unit in units} == {5}
        pids = {unit.worker.pid for unit in units if unit.worker is not None}
        assert sorted(notes(path)) == sorted(f"up {pid}" for pid in pids)


def test_teardown_runs_once_in_each_worker_after_its_last_unit_and_close_waits_for_it(controller: Controller, path: str) -> None:
    wq = WorkMgr(2, controller=controller)
    wq.teardown(crew.note, path, "down")
    units = [wq.queue(crew.pid) for _ in range(50)]
    pids = {unit.result() for unit in units}
    assert notes(path) == []
    wq.close()
    assert sorted(notes(path)) == sorted(f"down {pid}" for pid in pids)


def test_a_worker_that_has_run_no_unit_of_the_queue_tears_nothing_down(controller: Controller, path: str) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.queue(crew.pid).result()
        with WorkMgr(1, controller=controller) as other:
            other.setup(crew.set_up, path)
            other.teardown(crew.tear_down, path)
    assert notes(path) == []


def test_is_worker_job_is_true_in_setup_and_teardown(controller: Controller, path: str) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.set_up, path)
        wq.teardown(crew.tear_down, path)  # asserts that it is as it was
        assert wq.queue(crew.kept, "is_worker_job").result() is True
    assert words(path) == {"up": 1, "down": 1}


def test_a_worker_that_another_queue_needs_tears_down_first_and_is_set_up_again_when_it_comes_back(path: str) -> None:
    with Controller() as controller:
        controller.add_category(workq.Category("one", max_workers=1, max_active_workers=1, max_total_workers=1))
        with WorkMgr(1, category="one", controller=controller) as first, WorkMgr(1, category="one", controller=controller) as second:
            first.setup(crew.set_up, path)
            first.teardown(crew.tear_down, path)
            pids = {first.queue(crew.pid).result()}
            second.queue(crew.note, path, "second").result()
            pids.add(first.queue(crew.pid).result())
        assert [line.split()[0] for line in notes(path)] == ["up", "down", "second", "up", "down"]
        assert len(pids) == 1


def test_a_worker_that_is_set_up_is_not_torn_down_for_a_short_silence(path: str) -> None:
    with Controller(settings=DEFAULTS._replace(linger_s=0.001)) as controller, WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.set_up, path)
        wq.teardown(crew.tear_down, path)
        before: Counter[str] = Counter()
        for _ in tries():  # a worker that is not set up yet may be released in the very moment that it is sent its first unit
            wq.queue(crew.pid).result()
            crew_rests(controller)
            if words(path) == before:
                break
            before = words(path)
        for _ in range(5):
            wq.queue(crew.pid).result()
            crew_rests(controller)
        assert words(path) == before


def crew_rests(controller: Controller) -> None:
    """Let the controller take some turns."""
    for _ in range(5):
        controller.workers()
        controller.running().ring()


@pytest.mark.slow
def test_a_worker_that_has_nothing_to_do_for_long_tears_down_and_ends(path: str) -> None:
    with Controller(settings=DEFAULTS._replace(idle_timeout_s=0.05)) as controller, WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.set_up, path)
        wq.teardown(crew.tear_down, path)
        pid = wq.queue(crew.pid).result()
        wait_gone(pid)
        assert words(path) == {"up": 1, "down": 1}


def test_closing_the_controller_tears_down_first(path: str) -> None:
    controller = Controller()
    wq = WorkMgr(1, controller=controller)
    wq.setup(crew.set_up, path)
    wq.teardown(crew.tear_down, path)
    wq.queue(crew.pid).result()
    controller.close()
    assert words(path) == {"up": 1, "down": 1}


def test_a_dropped_queue_is_torn_down_as_well(controller: Controller, path: str) -> None:
    wq = WorkMgr(1, controller=controller)
    wq.teardown(crew.note, path, "down")
    wq.queue(crew.pid).result()
    del wq
    wait_until(lambda: notes(path))


def test_what_setup_has_changed_of_the_process_is_how_the_queues_units_find_it(controller: Controller) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.change_home)
        first = wq.queue(os.getcwd)
        assert (first.result(), first.notes) == ("/", [])
        assert wq.queue(os.getcwd).result() == "/"


# ---------------------------------------------------------------- when they may be named


@pytest.mark.parametrize("what", ["setup", "teardown"])
def test_setup_and_teardown_must_precede_the_first_queue(what: str, controller: Controller) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.queue(crew.pid)
        with pytest.raises(TooLate, match=f"{what} of queue .* must be named before its first unit"):
            getattr(wq, what)(crew.pid)


@pytest.mark.parametrize("what", ["setup", "teardown"])
def test_what_cannot_be_called_or_sent_is_refused_at_the_call(what: str, controller: Controller) -> None:
    with WorkMgr(1, controller=controller) as wq:
        with pytest.raises(workq.ArgumentError, match="fn must be callable"):
            getattr(wq, what)(3)
        with pytest.raises(workq.ArgumentError, match="coroutine"):
            getattr(wq, what)(coroutine)
        with pytest.raises(PicklingError, match=r"argument 1 \(path\) of type generator"):
            getattr(wq, what)(crew.note, (n for n in range(3)), "up")
    with pytest.raises(QueueClosed):
        getattr(wq, what)(crew.pid)


async def coroutine() -> None: ...


# ---------------------------------------------------------------- set-ups that fail


def test_a_failing_setup_fails_the_unit_that_met_it_and_makes_that_worker_unfit_for_this_queue(controller: Controller, path: str) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.fail_once, path)
        units = [wq.queue(crew.pid) for _ in range(20)]
        error = units[0].exception()
        assert isinstance(error, SetupFailed)
        assert "ConnectionRefusedError: the database does not answer" in str(error)
        assert isinstance(error.__cause__, workq.RemoteTraceback)
        assert "in fail\n" in error.__cause__.text
        assert units[0].worker is not None
        unfit = units[0].worker.pid
        others = {unit.result() for unit in units[1:]}
        assert unfit not in others
        assert words(path) == {"fail": 1, "up": 1}
        wait_gone(unfit)
        assert wq.metrics().workers_recycled == 1
        assert wq.metrics().workers_halted == 0


def test_where_every_worker_fails_the_queues_units_fail_with_that_error_and_nothing_respawns(controller: Controller, path: str) -> None:
    with WorkMgr(2, controller=controller) as wq:
        wq.setup(crew.fail, path)
        wq.pause()  # until all are queued
        units = [wq.queue(crew.pid) for _ in range(200)]
        wq.resume()
        errors = [unit.exception() for unit in units]
        assert {type(error) for error in errors} == {SetupFailed}
        assert len({id(error) for error in errors}) == 200, "a fresh exception for each"
        tries = len(notes(path))
        assert DEFAULTS.start_tries <= tries <= DEFAULTS.start_tries + 2
        assert isinstance(wq.queue(crew.pid).exception(), SetupFailed)
        assert len(notes(path)) == tries + 1, "a new unit has it tried once more"


def test_a_queue_heals_when_what_its_setup_needs_is_back(controller: Controller, path: str) -> None:
    Path(path + ".broken").touch()
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.fail_if, path)
        for unit in [wq.queue(crew.pid) for _ in range(5)]:
            assert isinstance(unit.exception(), SetupFailed)
        os.unlink(path + ".broken")
        assert wq.queue(crew.pid).result()


def test_a_unit_queued_after_the_failure_was_told_is_tried_and_not_failed_with_the_others(tmp_path: Path) -> None:
    """Whoever reads the outcome is ahead of the controller, which has yet to fail those that waited."""
    path, fifo = str(tmp_path / "notes"), str(tmp_path / "fifo")
    os.mkfifo(fifo)
    Path(path + ".broken").touch()
    with Controller(settings=DEFAULTS._replace(start_tries=1, sample_s=3600.0)) as controller, WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.wait_and_fail_if, fifo, path)
        first = wq.queue(crew.pid)
        others = [wq.queue(crew.pid) for _ in range(20)]
        gate = os.open(fifo, os.O_WRONLY)  # opens when the set-up has
        with between_turns(controller):
            os.close(gate)
            assert isinstance(first.exception(DEADLINE_S), SetupFailed)
            os.unlink(path + ".broken")
            last = wq.queue(crew.pid)
        assert {type(unit.exception()) for unit in others} == {SetupFailed}
        assert last.result()


def test_while_one_worker_is_set_up_it_serves_the_queue_alone_whatever_happens_to_others(controller: Controller, tmp_path: Path) -> None:
    path = str(tmp_path / "notes")
    with WorkMgr(3, controller=controller) as wq:
        wq.setup(crew.fail_but_in, str(tmp_path / "first"), path)
        wq.queue(crew.pid).result()
        outcomes = Counter(type(unit.exception()) for unit in [wq.queue(crew.pid) for _ in range(300)])
        assert outcomes[type(None)] >= 295
        assert outcomes[SetupFailed] <= 5


def test_a_setup_that_takes_its_worker_with_it_is_bounded_as_well(controller: Controller, caplog: pytest.LogCaptureFixture) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.leave, 3)
        wq.pause()  # until all are queued
        units = [wq.queue(crew.pid) for _ in range(50)]
        wq.resume()
        errors = [unit.exception() for unit in units]
        assert Counter(map(type, errors)) == {WorkerHalted: DEFAULTS.start_tries, SetupFailed: 50 - DEFAULTS.start_tries}
        assert "exited with code 3" in str(errors[-1])


def test_retries_bring_a_unit_whose_setup_failed_to_another_worker(controller: Controller, path: str) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.fail_once, path)
        unit = wq.options(retries=1).queue(crew.pid)
        assert unit.result()
        assert len(unit.attempts) == 2


# ---------------------------------------------------------------- interrupt, time-out, kill, output


def test_a_unit_cancelled_in_its_setup_is_cancelled_and_its_half_set_up_worker_replaced(controller: Controller, tmp_path: Path) -> None:
    fifo, ours = fifo_of(tmp_path)
    with WorkMgr(1, delete_timeout=60, controller=controller) as wq:
        wq.setup(crew.hang, fifo)
        unit = wq.queue(crew.pid)
        wait_readable(ours)
        pid = unit.worker.pid if unit.worker is not None else controller.workers()[0].pid
        assert unit.cancel()
        with pytest.raises(UnitCancelled):
            unit.result()
        wait_gone(pid)
        assert wq.metrics().workers_halted == wq.metrics().workers_killed == 0
    os.close(ours)


def test_the_time_out_of_the_unit_that_meets_it_holds_for_the_setup(controller: Controller, tmp_path: Path) -> None:
    fifo, ours = fifo_of(tmp_path)
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.hang, fifo)
        assert isinstance(wq.options(timeout=0.1).queue(crew.pid).exception(), UnitTimeout)
    os.close(ours)


@pytest.mark.slow
def test_a_setup_that_hears_nothing_is_killed_and_teardown_is_not_run_after_a_kill(controller: Controller, tmp_path: Path) -> None:
    fifo, ours = fifo_of(tmp_path)
    path = str(tmp_path / "notes")
    with WorkMgr(1, delete_timeout=0.05, controller=controller) as wq:
        wq.setup(crew.deaf, fifo)
        wq.teardown(crew.note, path, "down")
        unit = wq.queue(crew.pid)
        wait_readable(ours)
        assert unit.cancel()
        with pytest.raises(UnitCancelled):
            unit.result()
        assert wq.metrics().workers_killed == 1
    os.close(ours)
    assert notes(path) == []


def test_teardown_is_not_run_after_a_kill(controller: Controller, path: str) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.set_up, path)
        wq.teardown(crew.tear_down, path)
        assert isinstance(wq.queue(os.kill, wq.queue(crew.pid).result(), signal.SIGKILL).exception(), WorkerHalted)
    assert words(path) == {"up": 1}


def test_what_setup_prints_belongs_to_the_unit_that_met_it(controller: Controller, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.set_up, path)
        units = [wq.queue(crew.pid) for _ in range(2)]
        wq.sync()
        assert [unit.output for unit in units] == ["set up\n", ""]
    assert capsys.readouterr().out == "set up\n"


def test_what_teardown_prints_is_written_by_close(controller: Controller, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    wq = WorkMgr(1, controller=controller)
    wq.setup(crew.set_up, path)
    wq.teardown(crew.tear_down, path)
    wq.queue(crew.pid).result()
    capsys.readouterr()
    wq.close()
    assert capsys.readouterr().out == "torn down\n"


def test_a_failing_teardown_is_logged_with_its_traceback_and_hinders_nothing(
    controller: Controller, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.teardown(crew.fail, path)
        wq.queue(crew.pid).result()
        name = wq.name
    controller.delivery.drain(5.0)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith(f"the teardown of queue {name} failed in worker_")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ConnectionRefusedError)
    with WorkMgr(1, controller=controller) as wq:
        assert wq.queue(crew.pid).result()


@pytest.mark.slow
def test_a_teardown_that_does_not_end_is_killed_and_close_returns(tmp_path: Path) -> None:
    fifo, ours = fifo_of(tmp_path)
    with Controller(settings=DEFAULTS._replace(close_timeout_s=0.2)) as controller:
        with WorkMgr(1, controller=controller) as wq:
            wq.teardown(crew.deaf, fifo)
            pid = wq.queue(crew.pid).result()
        wait_gone(pid)
        assert controller.metrics().workers_killed == 1
    os.close(ours)


def test_a_worker_that_dies_in_its_teardown_holds_nobody_up(controller: Controller, caplog: pytest.LogCaptureFixture) -> None:
    with WorkMgr(1, controller=controller) as wq:
        wq.teardown(crew.leave, 4)
        wq.queue(crew.pid).result()
    assert any("before its teardown of queue" in record.getMessage() for record in caplog.records)
    with WorkMgr(1, controller=controller) as wq:
        assert wq.queue(crew.pid).result()


# ---------------------------------------------------------------- without workers, and inside a unit


def test_without_workers_setup_runs_once_in_the_caller_and_teardown_in_close(path: str) -> None:
    with WorkMgr(0) as wq:
        wq.setup(crew.set_up, path, 7)
        wq.teardown(crew.tear_down, path)
        assert [wq.queue(crew.kept, "value").result() for _ in range(3)] == [7, 7, 7]
        assert notes(path) == [f"up {os.getpid()}"]
    assert notes(path) == [f"up {os.getpid()}", f"down {os.getpid()}"]


def test_without_workers_a_failing_setup_fails_what_waits_and_is_tried_again_by_the_next_unit(path: str) -> None:
    with WorkMgr(0) as wq:
        wq.setup(crew.fail_once, path)
        units = [wq.queue(crew.pid) for _ in range(3)]
        assert [type(unit.exception()) for unit in units] == [SetupFailed] * 3
        assert wq.queue(crew.pid).result() == os.getpid()
    with WorkMgr(0) as wq:
        with pytest.raises(TooLate):
            wq.queue(crew.pid)
            wq.setup(crew.pid)


def test_without_workers_a_failing_teardown_is_logged(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with WorkMgr(0) as wq:
        wq.teardown(crew.fail, path)
        wq.queue(crew.pid).result()
    assert [record.getMessage() for record in caplog.records] == [f"the teardown of queue {wq.name} failed"]


def test_a_queue_that_a_unit_makes_has_setup_and_teardown_too(controller: Controller, path: str) -> None:
    with WorkMgr(1, controller=controller) as wq:
        assert wq.queue(crew.nested_set_up, path).result() == [8, 8]
        wait_until(lambda: words(path) == {"up": 1, "down": 1})


def test_a_unit_that_has_to_run_its_own_units_itself_is_set_up_for_them(path: str) -> None:
    with Controller() as controller:
        controller.add_category(workq.Category("one", max_workers=1, max_active_workers=1, max_total_workers=1))
        with WorkMgr(1, category="one", controller=controller) as wq:
            assert wq.queue(crew.nested_set_up, path).result() == [8, 8]
            pid = wq.queue(crew.pid).result()
            assert notes(path) == [f"up {pid}", f"down {pid}"]
            with pytest.raises(SetupFailed):
                wq.queue(crew.nested_set_up, path + "/no").result()


def test_map_is_set_up_as_well(controller: Controller, path: str) -> None:
    with WorkMgr(2, controller=controller) as wq:
        wq.setup(crew.set_up, path, 3)
        assert list(wq.map(crew.kept, ["value"] * 1000)) == [3] * 1000
        assert 1 <= words(path)["up"] <= 2
