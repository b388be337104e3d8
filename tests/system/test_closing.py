"""Closing where somebody is at it already: another thread, or a close that an exception has broken off. It ends everything all the same."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stepping import at_bytecode
from tests.support import DEADLINE_S, application, wait_gone, wait_until
from tests.system.blocks import in_a_block, in_an_async_block
from tests.system.held import NEVER_JUDGED, Held, deaf, sleep
from workq import Controller, QueueClosed, UnitCancelled, WorkMgr
from workq.engines.local import LocalEngine

pytestmark = pytest.mark.slow

STRIDE = 17  # bytecodes
STRUCK_FILES = ("controller/controller.py", "controller/loop.py", "controller/delivery.py", "threading.py")


def leave_the_block_of_the_controller(wq: WorkMgr, closing: Callable[[], object]) -> None:
    with wq.controller:
        closing()


def close(wq: WorkMgr, closing: Callable[[], object]) -> None:
    closing()
    wq.close()


def shut_down(wq: WorkMgr, closing: Callable[[], object]) -> None:
    closing()
    wq.shutdown(drain_timeout=0.0)


def shut_the_controller_down(wq: WorkMgr, closing: Callable[[], object]) -> None:
    closing()
    wq.controller.shutdown(drain_timeout=0.0)


def threads_of(controller: Controller) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"{controller.name}-")]


@pytest.mark.parametrize(
    "leave", [in_a_block, in_an_async_block, leave_the_block_of_the_controller, close, shut_down, shut_the_controller_down]
)
def test_nothing_runs_any_more_when_a_close_returns_also_where_another_thread_closes_the_controller(
    leave: Callable[[WorkMgr, Callable[[], object]], None], tmp_path: Path
) -> None:
    controller = Controller()
    wq = WorkMgr(1, controller=controller, delete_timeout=0.5)
    other = threading.Thread(target=controller.close, args=(DEADLINE_S,))

    def have_it_closed() -> None:
        other.start()
        wait_until(lambda: controller.closed)

    with Held(wq, tmp_path, deaf) as held:
        leave(wq, have_it_closed)
        assert held.unit.cancelled()
        assert not held.unit.running()
    other.join(DEADLINE_S)
    assert threads_of(controller) == []


class Struck(Exception):
    """What a signal handler raises."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what strikes while Python closes a generator it shows only
@pytest.mark.parametrize("handler", ["raises", "closes"])
def test_a_close_that_is_interrupted_anywhere_is_made_good_by_the_next(handler: str, tmp_path: Path) -> None:
    def strike() -> None:
        struck.append(step)
        if handler == "raises":
            raise Struck
        controller.close()

    struck: list[int] = []
    step = 1
    while len(struck) == step // STRIDE:
        controller = Controller(name=f"interrupted-{step}")
        wq = WorkMgr(1, controller=controller)
        with Held(wq, tmp_path) as held:
            worker = held.unit.worker
            with contextlib.suppress(Struck):
                at_bytecode(step, STRUCK_FILES, controller.close, strike)
            if step % 2:
                wq.close()
                assert held.unit.done()
            controller.close()
            assert held.unit.done()
        wait_gone(worker.pid)
        wait_until(lambda: threads_of(controller) == [])  # noqa: B023  # an exception in join() has Python itself believe that one has ended
        step += STRIDE
    assert len(struck) > 5


def test_what_is_to_be_called_last_is_not_called_while_the_controller_is_being_closed_and_a_unit_runs(tmp_path: Path) -> None:
    """Each has to see that the unit has ended."""
    seen: list[bool] = []
    controller = Controller()
    wq = WorkMgr(1, controller=controller, delete_timeout=0.5)
    other = threading.Thread(target=controller.close, args=(DEADLINE_S,))
    with Held(wq, tmp_path, deaf) as held:
        wq.cleanup(lambda: seen.append(held.unit.done()))
        other.start()
        wait_until(lambda: controller.closed)
        wq.close()
        other.join(DEADLINE_S)
    assert seen == [True]


def test_who_waits_for_a_close_that_is_broken_off_goes_on_with_it(tmp_path: Path) -> None:
    def strike() -> None:
        other.start()
        wait_until(lambda: len(controller.closers) == 2)
        raise Struck

    controller = Controller()
    wq = WorkMgr(1, controller=controller, delete_timeout=0.5)
    other = threading.Thread(target=controller.close, args=(3600.0,))
    with Held(wq, tmp_path, deaf) as held:
        with contextlib.suppress(Struck):
            at_bytecode(1, ("controller/claims.py",), controller.close, strike)
        other.join(DEADLINE_S)
        assert not other.is_alive()
        assert held.unit.cancelled()
    assert threads_of(controller) == []


def test_an_exception_in_the_middle_of_a_close_ends_what_runs_also_where_nobody_closes_again(tmp_path: Path) -> None:
    ended = application(
        """
        import signal, sys, workq
        from pathlib import Path
        from tests.system.held import Held, deaf

        if __name__ == "__main__":
            controller = workq.Controller()
            wq = workq.WorkMgr(1, controller=controller, delete_timeout=3600)
            held = Held(wq, Path(sys.argv[1]), deaf).wait_begun()
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            try:
                controller.close(3600)
            except KeyboardInterrupt:
                try:
                    held.unit.result(60)
                except workq.UnitCancelled as error:
                    print(error)
        """,
        str(tmp_path),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "unit Default-1:1 deaf was cancelled: the controller was closed"


def test_a_handler_that_closes_the_controller_in_the_middle_of_a_wait_does_not_wait_for_what_it_holds_up_itself() -> None:
    ended = application(
        """
        import signal, time, workq

        if __name__ == "__main__":
            with workq.Controller() as controller:
                wq = workq.WorkMgr(1, controller=controller)
                wq.queue(abs, 1).result()
                signal.signal(signal.SIGALRM, lambda *_: controller.close(3600))
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                try:
                    wq.queue(time.sleep, 3600).result()
                except workq.UnitCancelled as error:
                    print(error)
        """,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "unit Default-1:2 sleep was cancelled: the controller was closed"


def test_a_second_close_with_less_time_takes_none_from_the_first(tmp_path: Path) -> None:
    controller = Controller()
    wq = WorkMgr(1, controller=controller, delete_timeout=DEADLINE_S)
    other = threading.Thread(target=controller.close, args=(DEADLINE_S,))
    with Held(wq, tmp_path, deaf) as held:
        other.start()
        wait_until(lambda: "stopping" in repr(held.unit))
        controller.close(0.0)
    other.join(DEADLINE_S)
    assert held.unit.result() > 0


class Closing:
    """An argument while which is pickled another thread closes the controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def __reduce__(self) -> tuple[Any, ...]:
        other = threading.Thread(target=self._controller.close, args=(0.0,))
        other.start()
        other.join(DEADLINE_S)
        return int, ()


@pytest.mark.parametrize("behind", [0, 5])
def test_a_unit_whose_controller_is_closed_while_it_is_pickled_is_refused(behind: int, tmp_path: Path) -> None:
    controller = Controller(settings=NEVER_JUDGED)
    wq = WorkMgr(1, controller=controller)
    with Held(wq, tmp_path, sleep):
        units = [Held(wq, tmp_path, sleep).unit for _ in range(behind)]
        wait_until(lambda: wq._row.told > behind or not behind)  # the core knows of more than wait, and is not told of this one
        with pytest.raises(QueueClosed):
            wq.queue(abs, Closing(controller))
    assert all(unit.cancelled() for unit in units)
    assert not wq._row.busy()


def test_a_controller_that_is_closed_while_its_parts_are_made_leaves_none(tmp_path: Path) -> None:
    made: list[LocalEngine] = []

    def engine(bells: tuple[int, int]) -> LocalEngine:
        other = threading.Thread(target=controller.close)
        other.start()
        other.join(DEADLINE_S)
        made.append(LocalEngine(bells))
        return made[0]

    controller = Controller(engine=engine)
    wq: Any = WorkMgr(1, controller=controller)
    with pytest.raises((QueueClosed, UnitCancelled)):
        wq.queue(abs, -1).result(DEADLINE_S)
    assert controller.has_ended()
    assert made[0]._closed
    assert threads_of(controller) == []
