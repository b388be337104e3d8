"""Sessions: one worker of its own, calls in order, state kept between them, gone at the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import wait_gone, wait_readable, wait_until
from tests.system import crew
from tests.system.held import Held
from workq import Category, Controller, QueueClosed, SessionLost, SetupFailed, UnitCancelled, UnitTimeout, WorkMgr
from workq.config import DEFAULTS


@pytest.fixture
def wq() -> Iterator[WorkMgr]:
    with Controller() as controller, WorkMgr(1, delete_timeout=60, controller=controller) as one:
        yield one


def test_the_calls_of_a_session_run_in_order_in_one_worker_and_their_state_is_kept(wq: WorkMgr) -> None:
    with wq.session() as session:
        units = [session.queue(crew.add, "sum", n) for n in range(1, 101)]
        assert [unit.result() for unit in units] == [n * (n + 1) // 2 for n in range(1, 101)]
        assert {unit.worker.pid for unit in units if unit.worker is not None} == {session.run(crew.pid)}
        assert session.run(crew.kept, "sum") == 5050


def test_sessions_of_one_queue_have_workers_of_their_own_and_leave_those_of_the_queue_alone(wq: WorkMgr) -> None:
    with wq.session() as one, wq.session() as other:
        one.run(crew.keep, "a", 1)
        other.run(crew.keep, "a", 2)
        pids = {one.run(crew.pid), other.run(crew.pid), wq.queue(crew.pid).result()}
        assert len(pids) == 3
        assert [one.run(crew.kept, "a"), other.run(crew.kept, "a"), wq.queue(crew.kept, "a").result()] == [1, 2, None]
        assert one.name == f"{wq.name}.session-{one.name.rpartition('-')[2]}"


def test_at_the_end_of_a_session_its_worker_ends_and_its_state_with_it(wq: WorkMgr) -> None:
    with wq.session() as session:
        session.run(crew.keep, "a", 1)
        pid = session.run(crew.pid)
    wait_gone(pid)
    with wq.session() as again:
        assert again.run(crew.kept, "a") is None
    with pytest.raises(QueueClosed):
        session.run(crew.pid)
    assert "closed" in repr(session)
    assert wq.metrics().workers_halted == 0


def test_a_session_that_nobody_holds_any_more_ends(wq: WorkMgr) -> None:
    session = wq.session()
    pid = session.run(crew.pid)
    del session
    wait_gone(pid)


def test_closing_the_queue_closes_its_sessions() -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        session = wq.session()
        pid = session.run(crew.pid)
        wq.close()
        wait_gone(pid)
        with pytest.raises(QueueClosed):
            session.run(crew.pid)
        with pytest.raises(QueueClosed):
            wq.session()


def test_a_session_keeps_its_worker_however_long_it_does_nothing() -> None:
    with Controller(settings=DEFAULTS._replace(linger_s=0.001, idle_timeout_s=0.01)) as controller, WorkMgr(1, controller=controller) as wq:
        with wq.session() as session:
            session.run(crew.keep, "a", 1)
            pid = wq.queue(crew.pid).result()
            wait_gone(pid)  # the queue's own has been idle for too long
            assert session.run(crew.kept, "a") == 1
            wait_until(lambda: [row.state for row in wq.workers()] == ["held"])


def test_a_held_worker_takes_no_place_from_others_and_the_session_goes_on_though_all_are_taken(tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with Controller() as controller:
        controller.add_category(Category("one", max_workers=1, max_active_workers=1, always_queue=True))
        with WorkMgr(1, category="one", controller=controller) as wq, wq.session() as session:
            session.run(crew.keep, "a", 1)
            unit = wq.queue(crew.rank_and_wait, fifo)
            writer = os.open(fifo, os.O_WRONLY)  # waits until the unit runs
            assert session.run(crew.kept, "a") == 1
            os.close(writer)
            assert unit.result()


def test_an_exception_of_a_call_is_raised_and_the_session_lives_on(wq: WorkMgr) -> None:
    with wq.session() as session:
        session.run(crew.keep, "a", 1)
        with pytest.raises(ZeroDivisionError):
            session.run(divmod, 1, 0)
        assert session.run(crew.kept, "a") == 1


# ---------------------------------------------------------------- a worker that ends


def test_a_dead_worker_breaks_the_session_with_a_clear_error_and_nothing_is_silently_restarted(wq: WorkMgr, tmp_path: Path) -> None:
    with wq.session() as session:
        session.run(crew.keep, "a", 1)
        with Held(session, tmp_path):  # until both are queued
            first = session.queue(os._exit, 3)
            behind = session.queue(crew.kept, "a")
        for unit in (first, behind):
            error = unit.exception()
            assert isinstance(error, SessionLost)
            assert str(error).startswith(f"session {session.name} is lost: its worker has ended, and what it held is gone: worker_")
            assert error.halt is not None
            assert error.halt.exit_code == 3
        with pytest.raises(SessionLost, match="exited with code 3"):
            session.run(crew.kept, "a")
        with pytest.raises(SessionLost):
            session.options(timeout=1)
        assert session.lost
        assert "lost" in repr(session)
        assert wq.metrics().workers_started == 1


def test_a_worker_that_dies_between_two_calls_breaks_the_session_as_well(wq: WorkMgr) -> None:
    with wq.session() as session:
        pid = session.run(crew.pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: session.lost)
        with pytest.raises(SessionLost, match="SIGKILL"):
            session.run(crew.pid)


def test_retries_do_not_bring_back_what_a_lost_session_held(wq: WorkMgr) -> None:
    with wq.session() as session:
        assert isinstance(session.options(retries=3).queue(os._exit, 3).exception(), SessionLost)


def test_a_call_that_is_interrupted_leaves_the_session_alive(wq: WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    ours = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with wq.session() as session:
        session.run(crew.keep, "a", 1)
        assert isinstance(session.options(timeout=0.05).queue(crew.time_out).exception(), UnitTimeout)
        unit = session.queue(crew.hang, fifo)
        wait_readable(ours)
        assert unit.cancel()
        with pytest.raises(UnitCancelled):
            unit.result()
        assert session.run(crew.kept, "a") == 1
    os.close(ours)


@pytest.mark.slow
def test_a_call_that_had_to_be_killed_takes_the_session_with_it(wq: WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    ours = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    wq.delete_timeout = 0.05
    with wq.session() as session:
        unit = session.queue(crew.deaf, fifo)
        wait_readable(ours)
        assert unit.cancel()
        with pytest.raises(UnitCancelled):
            unit.result()
        with pytest.raises(SessionLost):
            session.run(crew.pid)
    os.close(ours)


def test_closing_a_session_stops_its_running_call(wq: WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    ours = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    session = wq.session()
    unit = session.queue(crew.hang, fifo)
    wait_readable(ours)
    session.close()
    assert unit.cancelled()
    os.close(ours)


# ---------------------------------------------------------------- with the rest


def test_setup_and_teardown_of_the_queue_hold_for_its_sessions(tmp_path: Path) -> None:
    path = str(tmp_path / "notes")
    with Controller() as controller, WorkMgr(1, controller=controller) as wq:
        wq.setup(crew.set_up, path, 6)
        wq.teardown(crew.tear_down, path)
        with wq.session() as session:
            assert session.run(crew.kept, "value") == 6
        assert [line.split()[0] for line in Path(path).read_text().splitlines()] == ["up", "down"]


def test_a_session_whose_setup_fails_is_lost(wq: WorkMgr, tmp_path: Path) -> None:
    path, fifo = str(tmp_path / "notes"), str(tmp_path / "fifo")
    os.mkfifo(fifo)
    Path(path + ".broken").touch()
    wq.setup(crew.wait_and_fail_if, fifo, path)
    with wq.session() as session:
        units = [session.queue(crew.pid) for _ in range(3)]
        os.close(os.open(fifo, os.O_WRONLY))  # the set-up fails now, not before all are queued
        assert isinstance(units[0].exception(), SetupFailed)
        assert {type(unit.exception()) for unit in units[1:]} <= {SessionLost, SetupFailed}
        wait_until(lambda: session.lost)
        with pytest.raises(SessionLost, match="its set-up did not succeed"):
            session.run(crew.pid)


def test_the_worker_of_a_session_is_not_replaced_whatever_its_category_says() -> None:
    with Controller() as controller:
        controller.add_category(Category("worn", max_units=1, max_age_s=0.001, max_memory_mb=1))
        with WorkMgr(1, category="worn", controller=controller) as wq, wq.session() as session:
            assert len({session.run(crew.pid) for _ in range(10)}) == 1


def test_a_session_takes_options_and_writes_what_its_calls_print(wq: WorkMgr, capsys: pytest.CaptureFixture[str]) -> None:
    with wq.session() as session:
        assert session.options(name="greeting").queue(print, "hello").name == "greeting"
        assert session.sync().done == 1
    assert capsys.readouterr().out == "hello\n"


def test_a_session_runs_calls_under_options(wq: WorkMgr) -> None:
    with wq.session() as session:
        view = session.options(timeout=5, priority=2)
        assert view.run(len, "four") == 4
        assert repr(view) == f"<SessionView of queue {session.name}: timeout=5, priority=2>"
        with pytest.raises(SessionLost):
            view.run(os._exit, 3)
        with pytest.raises(SessionLost):
            view.run(len, "four")


def test_without_workers_a_session_is_the_caller() -> None:
    with WorkMgr(0) as wq, wq.session() as session:
        session.run(crew.keep, "inline", 4)
        assert session.run(crew.kept, "inline") == 4
        assert session.run(crew.pid) == os.getpid()


def test_a_unit_may_have_a_session(wq: WorkMgr) -> None:
    assert wq.queue(crew.nested_session).result() == [3, "lost", "lost"]


def test_a_session_loses_an_error_that_can_be_pickled() -> None:
    import pickle

    error = SessionLost("session a is lost", None)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.halt) == (SessionLost, "session a is lost", None)
    assert isinstance(error, workq.UnitFailed)
