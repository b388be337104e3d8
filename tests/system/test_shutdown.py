"""shutdown: drain, then interrupt, then kill; of a queue, of a controller, by a signal. It says which units were cut short."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, start_application, wait_until
from tests.system.blocks import in_a_block, in_an_async_block
from tests.system.held import NEVER_JUDGED, Held, deaf, sleep
from workq import ArgumentError, Controller, QueueClosed, Retry, WorkMgr

pytestmark = pytest.mark.slow


def nest() -> int:
    with WorkMgr(1) as inner:
        unit = inner.queue(abs, -7)
        assert inner.shutdown(drain_timeout=20)
        return unit.result()


def fail_until(path: str, times: int) -> int:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        raise LookupError(path)
    return os.path.getsize(path)


# ---------------------------------------------------------------- a queue


@pytest.mark.parametrize("workers", [2, 0])
def test_shutdown_lets_all_that_was_queued_end_and_takes_nothing_new(workers: int, tmp_path: Path) -> None:
    with Controller() as controller:
        wq = WorkMgr(workers, controller=controller)
        called: list[int] = []
        units = [wq.queue(abs, -n) for n in range(100)]
        wq.queue_callback(abs, lambda unit, n: called.append(unit.result()), -5)
        again = wq.options(retries=Retry(2, delay=0.02)).queue(fail_until, str(tmp_path / "tries"), 2)
        failed = wq.queue(fail_until, str(tmp_path / "fails"), 9)
        told = wq.shutdown(drain_timeout=20)
        assert told
        assert str(told).startswith("all units have ended")
        assert [unit.result() for unit in units] == list(range(100))
        assert (called, again.result()) == ([5], 3)
        assert [str(error) for error in told.failures] == [str(tmp_path / "fails")]
        assert failed.state.value == "failed"
        with pytest.raises(QueueClosed):
            wq.queue(abs, -1)
        wq.close()


def test_what_has_not_ended_in_time_is_interrupted_then_killed_and_named(tmp_path: Path) -> None:
    with Controller(settings=NEVER_JUDGED) as controller:
        wq = WorkMgr(2, controller=controller, delete_timeout=0.2)
        with Held(wq, tmp_path, sleep) as soft, Held(wq, tmp_path, deaf) as hard:
            waiting = wq.queue(abs, -1)
            told = wq.shutdown(drain_timeout=0.05)
            assert not told
            assert set(told.interrupted) == {soft.unit.label, hard.unit.label}
            assert told.dropped == (waiting.label,)
            assert f"2 units were interrupted: {told.interrupted[0]}, " in str(told)
            assert f"1 unit was never begun: {waiting.label}" in str(told)
            assert all(unit.cancelled() for unit in (soft.unit, hard.unit, waiting))


def test_a_paused_queue_goes_on_so_that_its_units_can_end(tmp_path: Path) -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        unit = wq.queue(abs, -1)
        wq.pause(20)
        waiting = wq.queue(abs, -2)
        assert controller.shutdown(drain_timeout=20)
        assert (unit.result(), waiting.result()) == (1, 2)


def test_what_was_cut_short_is_named_also_where_deletion_is_asynchronous(tmp_path: Path) -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        gone = threading.Event()
        wq.cleanup(gone.set)
        with Held(wq, tmp_path, sleep) as held:
            told = wq.shutdown(drain_timeout=0)
        assert told.interrupted == (held.unit.label,)
        assert gone.wait(DEADLINE_S)


def test_a_queue_that_was_detached_is_shut_down_and_recurs_only_where_it_is_attached() -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        beat = wq.every(3600, abs, -1)
        token = wq.detach()
        for call in (wq.shutdown, lambda: wq.every(1.0, abs, -1), lambda: wq.cron("* * * * *", abs, -1)):
            with pytest.raises(workq.QueueDetached):
                call()
        assert beat.active
        again = WorkMgr.attach(token)
        assert again.shutdown(drain_timeout=20)
        assert not beat.active


def test_a_queue_that_was_never_used_is_shut_down_too() -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        assert wq.shutdown()
        with pytest.raises(QueueClosed):
            wq.queue(abs, -1)


def test_a_unit_shuts_its_own_queue_down() -> None:
    with Controller() as controller, WorkMgr(1, controller=controller) as wq:
        assert wq.queue(nest).result(DEADLINE_S) == 7


# ---------------------------------------------------------------- a controller


def test_a_controller_drains_all_its_queues_and_stops_what_recurs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "workq")
    controller = Controller()
    queues = [WorkMgr(1, controller=controller) for _ in range(3)]
    units = [wq.queue(abs, -n) for wq in queues for n in range(10)]
    beat = queues[0].every(3600, abs, -1)
    held = Held(queues[1], tmp_path).wait_begun()
    timer = threading.Timer(0.1, held.let_go)
    timer.start()
    told = controller.shutdown(drain_timeout=20)
    timer.join()
    assert told
    assert all(unit.done() and not unit.cancelled() for unit in (*units, held.unit))
    assert not beat.active
    assert controller.closed
    assert caplog.records == []
    with pytest.raises(QueueClosed):
        WorkMgr(1, controller=controller)


def test_a_controller_says_which_units_it_cut_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "workq")
    controller = Controller()
    wq = WorkMgr(1, controller=controller)
    with Held(wq, tmp_path) as held:
        told = controller.shutdown(drain_timeout=0)
        assert told.interrupted == (held.unit.label,)
    assert [record.getMessage() for record in caplog.records] == [f"shutdown: 1 unit was interrupted: {held.unit.label}"]
    assert controller.shutdown()


def test_while_a_controller_is_drained_nothing_new_is_taken(tmp_path: Path) -> None:
    controller = Controller()
    wq = WorkMgr(1, controller=controller)
    with Held(wq, tmp_path):
        thread = threading.Thread(target=controller.shutdown, args=(20,))
        thread.start()
        wait_until(lambda: controller.draining)
        with pytest.raises(QueueClosed, match="is being shut down"):
            wq.queue(abs, -1)
        with pytest.raises(QueueClosed, match="is being shut down"):
            WorkMgr(1, controller=controller)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


# ---------------------------------------------------------------- a block that is left meanwhile, or afterwards


both_blocks = pytest.mark.parametrize("block", [in_a_block, in_an_async_block])


class Draining:
    """A thread that shuts down a queue, or its controller, meanwhile."""

    def __init__(self, wq: WorkMgr, shutdown: Callable[[float], workq.Shutdown], drain_timeout: float) -> None:
        self.told: list[workq.Shutdown] = []
        self._wq = wq
        self._thread = threading.Thread(target=lambda: self.told.append(shutdown(drain_timeout)))

    def begin(self) -> None:
        self._thread.start()
        wait_until(lambda: "closed" in repr(self._wq))

    def finish(self) -> workq.Shutdown:
        self._thread.join(DEADLINE_S)
        return self.told[0]


@both_blocks
@pytest.mark.parametrize("whose", ["controller", "queue"])
def test_leaving_a_block_waits_for_the_drain_that_another_thread_has_begun(block: Callable[..., None], whose: str, tmp_path: Path) -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        held = Held(wq, tmp_path).wait_begun()
        draining = Draining(wq, controller.shutdown if whose == "controller" else wq.shutdown, DEADLINE_S)
        timer = threading.Timer(0.1, held.let_go)

        def inside() -> None:
            draining.begin()
            timer.start()

        block(wq, inside)
        assert held.unit.done()
        assert not held.unit.cancelled()
        assert draining.finish()
        timer.join()


def test_leaving_the_block_of_a_controller_waits_for_its_drain_too(tmp_path: Path) -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        held = Held(wq, tmp_path).wait_begun()
        draining = Draining(wq, controller.shutdown, DEADLINE_S)
        draining.begin()
        timer = threading.Timer(0.1, held.let_go)
        timer.start()
    assert (held.unit.done(), held.unit.cancelled()) == (True, False)
    assert draining.finish()
    timer.join()


def test_an_exception_in_the_block_of_a_controller_ends_it_also_while_it_is_drained(tmp_path: Path) -> None:
    with pytest.raises(LookupError), Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        held = Held(wq, tmp_path, sleep).wait_begun()
        draining = Draining(wq, controller.shutdown, DEADLINE_S)
        draining.begin()
        raise LookupError
    assert held.unit.cancelled()
    draining.finish()
    held.let_go()


@pytest.mark.parametrize("workers", [1, 0])
@pytest.mark.parametrize("end", ["close", "shutdown", "controller"])
def test_what_is_closed_cannot_be_held_up_any_more_and_nobody_has_to_ask_before(end: str, workers: int) -> None:
    with Controller() as controller:
        wq = WorkMgr(workers, controller=controller)
        assert wq.queue(abs, -1).result() == 1
        wq.pause()
        {"close": wq.close, "shutdown": wq.shutdown, "controller": controller.close}[end]()
        was = wq.paused
        wq.resume()
        assert (wq.pause(), wq.pause(DEADLINE_S), wq.clear()) == (True, True, 0)
        assert wq.paused is was


def test_what_is_shut_down_by_another_thread_goes_on_though_somebody_wants_to_hold_it_up(tmp_path: Path) -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        with Held(wq, tmp_path) as held:
            behind = wq.queue(abs, -2)
            draining = Draining(wq, controller.shutdown, DEADLINE_S)
            draining.begin()
            assert (wq.pause(), wq.clear(), wq.paused) == (False, 0, False)
            held.let_go()
        assert draining.finish()
        assert behind.result() == 2


@both_blocks
@pytest.mark.parametrize("whose", ["controller", "queue"])
def test_leaving_a_block_ends_without_a_word_where_the_time_of_the_drain_is_over(
    block: Callable[..., None], whose: str, tmp_path: Path
) -> None:
    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        with Held(wq, tmp_path, sleep) as held:
            draining = Draining(wq, controller.shutdown if whose == "controller" else wq.shutdown, 0.3)
            block(wq, draining.begin)
            assert held.unit.cancelled()
            assert draining.finish().interrupted == (held.unit.label,)


def test_an_exception_in_the_block_ends_its_units_also_while_they_are_drained(tmp_path: Path) -> None:
    def begin_and_fail() -> None:
        draining.begin()
        raise LookupError

    with Controller() as controller:
        wq = WorkMgr(1, controller=controller)
        with Held(wq, tmp_path, sleep) as held:
            draining = Draining(wq, controller.shutdown, DEADLINE_S)
            with pytest.raises(LookupError):
                in_a_block(wq, begin_and_fail)
            assert held.unit.cancelled()
            draining.finish()


@pytest.mark.parametrize("workers", [1, 0])
@pytest.mark.parametrize("end", ["shutdown", "close"])
@pytest.mark.parametrize("use", ["none", "units", "paused", "failed"])
def test_a_queue_whose_controller_has_ended_is_shut_down_and_left_without_a_word(workers: int, end: str, use: str) -> None:
    controller = Controller()
    queues = [WorkMgr(workers, controller=controller) for _ in range(3)]
    for wq in queues:
        if use == "units":
            assert wq.queue(abs, -1).result() == 1
            wq.queue(abs, -2)
        elif use == "paused":
            wq.pause()
            if workers:
                wq.every(3600, abs, -1)
        elif use == "failed":
            wq.queue_callback(divmod, lambda unit, *_: None, 1, 0)
    getattr(controller, end)()
    told = queues[0].shutdown()
    assert told
    assert told.failures == ()
    assert queues[0].shutdown()
    in_a_block(queues[1])
    in_an_async_block(queues[2])


@pytest.mark.parametrize("seconds", [-1, None, "1", float("nan")])
def test_a_time_that_makes_no_sense_is_refused(seconds: object) -> None:
    with Controller() as controller, WorkMgr(1, controller=controller) as wq:
        for shutdown in (wq.shutdown, controller.shutdown):
            with pytest.raises(ArgumentError, match="drain_timeout"):
                shutdown(seconds)  # type: ignore[arg-type]
        assert wq.queue(abs, -1).result() == 1


# ---------------------------------------------------------------- a signal

SERVICE = """
    import logging, os, signal, sys, time, threading
    import workq
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout, level="INFO" if "info" in sys.argv else None)
    def work(seconds):
        if seconds: time.sleep(seconds)
        return seconds
    def former(number, frame):
        print("former handler", signal.Signals(number).name, flush=True)
        sys.exit(5)
    if __name__ == "__main__":
        if "former" in sys.argv: signal.signal(signal.SIGTERM, former)
        handle = workq.shutdown_on_signal(drain_timeout=float(sys.argv[1]))
        wq = workq.WorkMgr(1, name="jobs")
        unit = wq.queue(work, float(sys.argv[2]))
        while not (unit.running() or unit.done()): time.sleep(0.002)
        print("ready", flush=True)
        if "exits" in sys.argv:
            try: unit.result()
            except workq.UnitCancelled: pass
            print("main is over", flush=True)
        else:
            threading.Event().wait()
"""


def test_sigterm_lets_units_end_and_then_the_default_ends_the_program() -> None:
    with start_application(SERVICE, "20", "0.3") as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")
    assert ended.run_time_s > 0.3


def test_sigterm_interrupts_what_does_not_end_says_so_and_lets_the_former_handler_act() -> None:
    with start_application(SERVICE, "0.05", "600", "former") as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    lines = ended.stdout.splitlines()
    assert lines[-1] == "former handler SIGTERM"
    assert "WARNING SIGTERM: 1 unit was interrupted: jobs:1 work" in lines
    assert (ended.returncode, ended.stderr) == (5, "")


def test_a_second_signal_ends_the_wait_at_once() -> None:
    with start_application(SERVICE, "600", "600", "info") as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        assert app.line() == "INFO SIGTERM: units have 600 s to end"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    assert ended.returncode == -signal.SIGTERM
    assert "1 unit was interrupted: jobs:1 work" in ended.stdout


def test_a_program_whose_main_thread_ends_meanwhile_ends_by_the_signal_all_the_same() -> None:
    with start_application(SERVICE, "0.05", "600", "exits") as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    assert ended.returncode == -signal.SIGTERM
    assert "main is over" in ended.stdout
    assert "1 unit was interrupted" in ended.stdout


ASYNCIO_SERVICE = """
    import asyncio, signal, time
    import workq
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        workq.shutdown_on_signal(signal.SIGTERM, drain_timeout=20)
        async with workq.WorkMgr(1) as wq:
            unit = wq.queue(time.sleep, 0.3)
            while not (unit.running() or unit.done()): await asyncio.sleep(0.002)
            print("ready", flush=True)
            await stop.wait()
        print("the unit is", unit.state.value, flush=True)
    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_a_program_of_asyncio_that_leaves_its_block_at_the_signal_waits_for_the_drain() -> None:
    with start_application(ASYNCIO_SERVICE) as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    assert ended.stdout == "the unit is done\n"
    assert ended.returncode in (0, -signal.SIGTERM), "whether its loop is there when the signal is sent again"
    if ended.stderr:  # what asyncio says of any signal that comes while its loop is being closed
        assert ended.stderr.startswith("Exception ignored when trying to write to the signal wakeup fd:")
        assert ended.stderr.count("Traceback") == 1


HEARING_SERVICE = """
    import asyncio, signal
    import workq
    async def main():
        heard = asyncio.Queue()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.put_nowait, "SIGTERM")
        workq.shutdown_on_signal(signal.SIGTERM)
        async with workq.WorkMgr(1) as wq:
            await wq.queue(abs, -1)
            print("ready", flush=True)
            await heard.get()
            await heard.get()
            await asyncio.sleep(0)  # what was heard in the same turn of the loop is in the queue now
            print("heard besides:", heard.qsize(), flush=True)
    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_a_loop_of_asyncio_hears_the_signal_when_it_comes_and_once_again_after_the_drain() -> None:
    with start_application(HEARING_SERVICE) as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    assert ended.stdout == "heard besides: 0\n"


CHAINED_SERVICE = """
    import signal, sys, time
    import workq
    if __name__ == "__main__":
        if sys.argv[1] == "own":
            signal.signal(signal.SIGTERM, lambda number, frame: (print("the former one"), sys.exit(7)))
        workq.shutdown_on_signal(signal.SIGTERM)
        ours = signal.getsignal(signal.SIGTERM)
        def later(number, frame):
            print("the later one", flush=True)
            ours(number, frame)
        signal.signal(signal.SIGTERM, later)
        with workq.WorkMgr(1) as wq:
            unit = wq.queue(abs, -1)
            unit.result()
            print("ready", flush=True)
            time.sleep(60)
"""


@pytest.mark.parametrize(("former", "code", "said"), [("own", 7, "the former one\n"), ("none", -signal.SIGTERM, "")])
def test_a_handler_that_was_set_later_and_calls_ours_hears_of_the_signal_twice_and_the_former_one_once(
    former: str, code: int, said: str
) -> None:
    with start_application(CHAINED_SERVICE, former) as app:
        assert app.line() == "ready"
        os.kill(app.pid, signal.SIGTERM)
        ended = app.finish()
    assert ended.stdout == "the later one\nthe later one\n" + said
    assert (ended.returncode, ended.stderr) == (code, "")


def test_uninstalling_puts_the_former_handler_back_and_leaves_nothing() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    handle = workq.shutdown_on_signal(signal.SIGUSR1, drain_timeout=1)
    assert signal.getsignal(signal.SIGUSR1) is not before
    handle.uninstall()
    handle.uninstall()
    assert signal.getsignal(signal.SIGUSR1) is before
    assert handle.report is None


def test_a_child_that_the_program_forks_has_the_former_handler() -> None:
    handle = workq.shutdown_on_signal(signal.SIGUSR1, drain_timeout=1)
    try:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGUSR1
        assert handle.report is None
    finally:
        handle.uninstall()


def test_a_signal_of_real_time_that_has_no_name_is_passed_on_as_any_other() -> None:
    number, came = signal.SIGRTMIN + 1, threading.Event()
    former = signal.signal(number, lambda *_: came.set())
    try:
        with Controller() as controller:
            handle = workq.shutdown_on_signal(number, controller=controller)
            assert repr(handle) == f"<SignalShutdown on signal {int(number)}, 10 s to end: waits>"
            signal.raise_signal(number)
            wait_until(came.is_set)  # one wait could begin between the signal and its handler, and would not be ended by it
            assert handle.report
            assert repr(handle).endswith(": done>")
            handle.uninstall()
    finally:
        signal.signal(number, former)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (signal.SIGKILL, 0, "SIGTERM", 999):
        with pytest.raises(ArgumentError, match=r"signals must be .*, such as signal\.SIGTERM, not"):
            workq.shutdown_on_signal(wrong)  # type: ignore[arg-type]
    errors: list[BaseException] = []

    def call() -> None:
        try:
            workq.shutdown_on_signal()
        except workq.WorkqError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
