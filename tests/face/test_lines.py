"""Single lines of the specification, each with the test that is named after it; what has more to it has a file of its own."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import os
import pickle
import queue
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, application, start_application, tries, wait_gone, wait_readable, wait_until
from tests.system.held import Held, hold, spin
from workq.given.cpus import usable_cpus


def fail(word: str) -> None:
    raise LookupError(word)


def write_to(fifo: str) -> None:
    with open(fifo, "wb") as file:
        file.write(b"x")


def speak(word: str) -> str:
    print(word)
    return word


# ---------------------------------------------------------------- the work queue


@pytest.mark.slow
def test_a_queue_starts_nothing_and_a_unit_starts_at_once_though_nobody_waits(tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq:
            assert (len(controller.workers()), controller.metrics().workers_started) == (0, 0)
            wq.queue(write_to, fifo)
            wait_readable(reader)
    finally:
        os.close(reader)


def test_the_limits_that_nobody_names_are_the_usable_cpus_and_twice_those(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKQ_MAX_WORKERS", raising=False)
    cpus = usable_cpus()
    category = workq.Category("plain")
    assert (category.default_workers, category.max_workers, category.max_active_workers) == (cpus, 2 * cpus, 2 * cpus)
    assert (category.max_total_workers, category.always_queue) == (None, False)
    with workq.Controller() as controller:
        assert workq.WorkMgr(controller=controller).num_workers == cpus
        assert workq.WorkMgr(10 * cpus, controller=controller).num_workers == 2 * cpus


def test_the_delete_timeout_is_one_second_unless_it_was_named_and_can_be_changed(controller: workq.Controller) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    assert wq.delete_timeout == 1.0
    wq.delete_timeout = 0.25
    assert wq.delete_timeout == 0.25
    assert workq.WorkMgr(1, delete_timeout=3, controller=controller).delete_timeout == 3.0


def test_what_nobody_names_is_as_the_specification_says() -> None:
    def defaults(method: Any) -> dict[str, object]:
        parameters = inspect.signature(method).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}

    made = defaults(workq.WorkMgr)
    assert (made["num_workers"], made["name"], made["delete_timeout"], made["controller"]) == (None, None, 1.0, None)
    assert (made["output"], made["at_exit"], made["max_pending"], made["contextvars"]) == ("stream", "cancel", None, False)
    assert defaults(workq.WorkMgr.sync) == {"timeout": None, "stop_on_error": False, "progress": False}
    for method in (workq.WorkMgr.wait, workq.WorkMgr.wait_one, workq.WorkMgr.as_completed):
        assert defaults(method) == {"timeout": None}
    assert defaults(workq.WorkMgr.pause) == {"timeout": 0.0}
    assert defaults(workq.WorkMgr.clear) == {"timeout": 5.0}
    assert defaults(workq.WorkMgr.detach) == {"timeout": 86400.0}
    with workq.Controller() as controller:
        assert workq.WorkMgr(controller=controller).category == "Default"


def test_options_are_a_view_of_the_same_queue_for_queue_queue_callback_and_map(wq: workq.WorkMgr) -> None:
    seen: list[str] = []
    view = wq.options(name="mine", priority=1)
    units = [view.queue(abs, -1), view.queue_callback(abs, lambda unit, number: seen.append(unit.name), -2)]
    assert list(view.map(abs, [-3, -4])) == [3, 4]
    assert wq.sync(DEADLINE_S).done >= 2 + 1  # the items of a map may travel together
    assert [(unit.name, unit.queue, unit.result()) for unit in units] == [("mine", "face", 1), ("mine", "face", 2)]
    assert seen == ["mine"]
    assert wq.queue(abs, -5).name == "abs"  # the queue itself is as before


def test_a_category_may_have_letters_digits_and_three_signs_up_to_64_in_its_name() -> None:
    assert workq.Category("A-z_0.9").name == "A-z_0.9"
    assert len(workq.Category("x" * 64).name) == 64


def test_sync_returns_immutable_statistics_that_can_be_read_and_the_queue_can_be_used_again(wq: workq.WorkMgr) -> None:
    for number in range(3):
        wq.queue(abs, -number)
    first = wq.sync(DEADLINE_S)
    assert (first.done, first.queued, first.running) == (3, 0, 0)
    with pytest.raises(AttributeError):
        first.done = 0  # type: ignore[misc]
    head, names, figures = repr(first).splitlines()
    assert head.startswith("queue face (Default): ")
    assert dict(zip(names.split()[:3], figures.split()[:3], strict=True)) == {"queued": "0", "running": "0", "done": "3"}
    wq.queue(abs, 1)
    assert wq.sync(DEADLINE_S).done == 4
    assert first.done == 3  # it stays what it was


def test_leaving_with_waits_for_all_units_and_raises_what_nobody_has_asked_for(controller: workq.Controller, wq: workq.WorkMgr) -> None:
    units: list[workq.Unit[Any]] = []
    with pytest.raises(workq.WorkErrors) as caught, wq:
        units += [wq.queue(fail, "one"), wq.queue(abs, -2), wq.queue(fail, "three")]
    assert isinstance(caught.value, ExceptionGroup)
    assert [error.args[0] for error in caught.value.exceptions] == ["one", "three"]
    assert units[1].result() == 2
    with pytest.raises(workq.QueueClosed):
        wq.queue(abs, 1)


def test_an_exception_in_the_block_deletes_the_queue_at_once(busy: workq.WorkMgr, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), busy:
        held = Held(busy, tmp_path, spin).wait_begun()
        waiting = [busy.queue(time.sleep, 600) for _ in range(10)]
        raise ZeroDivisionError
    assert all(unit.cancelled() for unit in (held.unit, *waiting))
    held.let_go()


def test_dropping_the_last_reference_deletes_the_queue(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, delete_timeout=DEADLINE_S, controller=controller)  # a busy machine has the time to interrupt it
    held = Held(wq, tmp_path, spin).wait_begun()
    waiting = [wq.queue(time.sleep, 600) for _ in range(10)]
    del wq
    gc.collect()
    for unit in (held.unit, *waiting):
        with pytest.raises(workq.UnitCancelled, match=r"nobody held its WorkMgr any more|interrupted while it ran"):
            unit.result(DEADLINE_S)
    held.let_go()


def test_of_items_that_take_long_map_reads_no_more_than_what_is_worked_on_and_a_little(wq: workq.WorkMgr) -> None:
    read: list[int] = []
    results = wq.map(time.sleep, (read.append(number) or 0.01 for number in range(10**9)))  # type: ignore[func-returns-value]
    for _ in range(4):
        next(results)
    assert len(read) <= 4 + 2 * 16  # for each worker sixteen, so that none ever waits for the next
    results.close()  # type: ignore[attr-defined]


def test_numbers_of_a_queue_are_read_at_any_time_from_any_thread(busy: workq.WorkMgr, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float, int, int]] = []

    def look() -> None:
        numbers = busy.statistics()
        seen.append((busy.num_workers, busy.num_active_workers, busy.delete_timeout, numbers.running, numbers.queued))

    def look_elsewhere() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(DEADLINE_S)

    look_elsewhere()
    with Held(busy, tmp_path, spin), Held(busy, tmp_path, spin):
        waiting = busy.queue(abs, -1)
        look_elsewhere()
        waiting.cancel()
    busy.close()
    look_elsewhere()
    assert seen == [(2, 0, 0.1, 0, 0), (2, 2, 0.1, 2, 1), (2, 0, 0.1, 0, 0)]


# ---------------------------------------------------------------- the unit


def test_a_unit_tells_its_state_name_queue_worker_output_times_and_attempts(wq: workq.WorkMgr, capfd: pytest.CaptureFixture[str]) -> None:
    before = time.monotonic()
    unit = wq.options(name="speaker").queue(speak, "hello")
    unit.result(DEADLINE_S)
    assert unit.id >= 1
    assert (unit.name, unit.queue, unit.state.value, unit.output) == ("speaker", "face", "done", "hello\n")
    if unit.worker is None:  # it ran in the caller
        assert wq.num_workers == 0
    else:
        assert unit.worker.pid > 0
        assert unit.worker.name == "worker_" + unit.worker.process_info_id[:8]
    assert unit.started_at is not None
    assert before <= unit.started_at <= time.monotonic()
    assert unit.wait_time_s is not None
    assert unit.run_time_s is not None
    assert 0 <= unit.wait_time_s < DEADLINE_S
    assert 0 <= unit.run_time_s < DEADLINE_S
    (attempt,) = unit.attempts
    assert (attempt.number, attempt.outcome) == (1, "done")
    wq.sync(DEADLINE_S)
    assert capfd.readouterr().out == "hello\n"


def test_the_ends_of_a_unit_differ_by_type_and_a_cancel_is_told_at_debug_and_a_loss_at_error(
    busy: workq.WorkMgr, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "workq")
    busy.delete_timeout = 60  # a kill would be told too
    held = Held(busy, tmp_path, spin).wait_begun()
    held.unit.cancel()
    units = [
        busy.queue(abs, -1),
        busy.queue(fail, "mine"),
        held.unit,
        busy.options(timeout=0.02).queue(time.sleep, 600),
        busy.queue(os._exit, 3),
    ]
    kinds = [type(unit.exception(DEADLINE_S)) if unit is not held.unit else None for unit in units]
    with pytest.raises(workq.UnitCancelled):
        held.unit.result(DEADLINE_S)
    held.let_go()
    assert kinds == [type(None), LookupError, None, workq.UnitTimeout, workq.WorkerHalted]
    assert [unit.state.value for unit in units] == ["done", "failed", "cancelled", "timed out", "lost"]
    told = {label: {record.levelname for record in caplog.records if label in record.getMessage()} for label in (u.label for u in units)}
    assert [told[unit.label] for unit in units] == [set(), set(), {"DEBUG"}, {"DEBUG"}, {"ERROR"}]


# ---------------------------------------------------------------- what ends by itself


def halt_once(controller: workq.Controller, wq: workq.WorkMgr, tmp_path: Path, told: queue.SimpleQueue[workq.Halt]) -> tuple[float, float]:
    """Kill a busy worker; return after how many seconds the callback was called, and the unit had ended."""
    with Held(wq, tmp_path, hold) as held:
        pid = next(row.pid for row in controller.workers() if row.unit == held.unit.label)
        lost = controller.metrics().workers_halted
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(workq.WorkerHalted):
            held.unit.result(DEADLINE_S)
        unit_s = time.monotonic() - begun
        assert told.get(timeout=DEADLINE_S).pid == pid
        callback_s = time.monotonic() - begun
        assert controller.metrics().workers_halted == lost + 1
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1  # the pool is back
    return callback_s, unit_s


@pytest.mark.slow
def test_a_worker_that_halts_is_told_within_a_tenth_of_a_second_by_callback_log_metrics_and_unit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: queue.SimpleQueue[workq.Halt] = queue.SimpleQueue()
    with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq:
        controller.on_halt(told.put)
        times = []
        for _ in tries():
            times.append(max(halt_once(controller, wq, tmp_path, told)))
            if times[-1] < 0.1:
                break
    assert times[-1] < 0.1, times
    assert sum(record.levelname == "ERROR" and "SIGKILL" in record.getMessage() for record in caplog.records) == len(times)


@pytest.mark.slow
def test_of_ten_units_of_which_one_kills_its_worker_nine_end_well_within_half_a_second(controller: workq.Controller) -> None:
    took = []
    with workq.WorkMgr(2, controller=controller) as wq:
        wq.queue(abs, 1).result(DEADLINE_S)
        for _ in tries():
            begun = time.monotonic()
            units = [wq.queue(os.abort) if number == 3 else wq.queue(abs, -number) for number in range(10)]
            errors = [unit.exception(DEADLINE_S) for unit in units]
            took.append(time.monotonic() - begun)
            lost = [(number, error) for number, error in enumerate(errors) if error is not None]
            assert [(number, type(error)) for number, error in lost] == [(3, workq.WorkerHalted)]
            assert "SIGABRT" in str(lost[0][1])
            if took[-1] < 0.5:
                break
    assert took[-1] < 0.5, took


def test_a_running_unit_is_stopped_within_a_fifth_of_a_second_and_only_then_cancelled(busy: workq.WorkMgr) -> None:
    took = []
    busy.delete_timeout = 60.0
    for _ in tries():
        unit = busy.queue(time.sleep, 600)
        wait_until(unit.running)
        begun = time.monotonic()
        assert unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            unit.result(DEADLINE_S)
        took.append(time.monotonic() - begun)
        assert unit.cancelled()
        assert all(row.unit != unit.label for row in busy.workers())
        if took[-1] < 0.2:
            break
    assert took[-1] < 0.2, took


def die_at_start(folder: str) -> None:
    if not os.path.exists(folder + "/mended"):
        os._exit(5)


@pytest.mark.slow
def test_a_halt_names_the_phase_start_idle_setup_or_unit(tmp_path: Path) -> None:
    told: queue.SimpleQueue[workq.Halt] = queue.SimpleQueue()
    settings = workq.config.DEFAULTS._replace(start_backoff_s=0.001)
    with workq.Controller(settings=settings) as controller:
        controller.on_halt(told.put)
        controller.add_category(workq.Category("sick", initializer=die_at_start, initializer_args=(str(tmp_path),)))
        with workq.WorkMgr(1, category="sick", controller=controller) as wq:
            assert isinstance(wq.queue(abs, 1).exception(DEADLINE_S), workq.LaunchError)
            assert (told.get(timeout=DEADLINE_S).phase, halt_code(told)) == ("start", 5)
            (tmp_path / "mended").touch()
            pid = wq.queue(os.getpid).result(DEADLINE_S)
            wait_until(lambda: [row.state for row in controller.workers()] != ["active"])
            os.kill(pid, signal.SIGKILL)
            assert phase_of(told, pid) == "idle"
            unit = wq.queue(os._exit, 5)
            assert isinstance(unit.exception(DEADLINE_S), workq.WorkerHalted)
            assert unit.worker is not None
            assert phase_of(told, unit.worker.pid) == "unit"
        with workq.WorkMgr(1, name="fussy", category="sick", controller=controller) as wq:
            wq.setup(os._exit, 5)
            unit = wq.queue(abs, 1)
            error = unit.exception(DEADLINE_S)
            assert isinstance(error, workq.WorkerHalted)
            assert phase_of(told, error.pid) == "setup"
            assert re.search(r"exited with code 5 in the setup of queue fussy, before unit fussy:\d+ abs, after ", str(error))
            assert "the unit was not begun; options(retries=...)" in str(error)


def test_a_halt_while_a_worker_leaves_names_the_phase_exit() -> None:
    told: queue.SimpleQueue[workq.Halt] = queue.SimpleQueue()
    with workq.Controller() as controller:
        controller.on_halt(told.put)
        controller.categories.create("short")
        with workq.WorkMgr(1, category="short", controller=controller) as wq:
            pid = wq.queue(os.getpid).result(DEADLINE_S)
            wait_until(lambda: [row.state for row in controller.workers()] != ["active"])
        os.kill(pid, signal.SIGSTOP)  # so that it does not hear that it is to leave
        controller.categories.delete("short")
        wait_until(lambda: controller.metrics().stopping_workers == 1)
        os.kill(pid, signal.SIGKILL)
        halt = told.get(timeout=DEADLINE_S)
        assert (halt.pid, halt.phase, halt.signal, halt.unit) == (pid, "exit", "SIGKILL", None)


def halt_code(told: queue.SimpleQueue[workq.Halt]) -> int | None:
    return told.get(timeout=DEADLINE_S).exit_code


def phase_of(told: queue.SimpleQueue[workq.Halt], pid: int) -> str:
    """Return what the worker with this pid was doing when it halted; starts that failed meanwhile are passed over."""
    while (halt := told.get(timeout=DEADLINE_S)).pid != pid:
        assert halt.phase == "start"
    return halt.phase


@pytest.mark.slow
def test_nothing_outlives_an_application_that_is_killed_by_a_second() -> None:
    """Idle workers, busy ones and what they started."""
    took = []
    for _ in tries():
        with start_application(KILLED) as app:
            pids = [int(word) for word in app.line().split()]
            assert len(set(pids)) == 3
            begun = time.monotonic()
            os.kill(app.pid, signal.SIGKILL)
            for pid in pids:
                wait_gone(pid)
            took.append(time.monotonic() - begun)
        if took[-1] < 1:
            break
    assert took[-1] < 1, took


KILLED = """
    import os, subprocess, time, workq

    def busy(fifo):
        with open(fifo, "w") as file:
            print(os.getpid(), subprocess.Popen(["/bin/sleep", "600"]).pid, file=file)
        while True:
            pass

    if __name__ == "__main__":
        fifo = os.path.abspath(__file__) + ".fifo"
        os.mkfifo(fifo)
        wq = workq.WorkMgr(2)
        unit = wq.queue(busy, fifo)
        with open(fifo) as file:
            said = file.read()
        print(wq.queue(os.getpid).result(), said, flush=True)
        time.sleep(600)
"""


# ---------------------------------------------------------------- workers


@pytest.mark.slow
def test_a_retired_worker_is_activated_within_five_milliseconds_with_the_same_pid(tmp_path: Path) -> None:
    """A worker that another stood in for has gone to rest; a queue that needs one more gets it and no new process."""
    with workq.Controller(settings=workq.config.DEFAULTS._replace(sample_s=3600.0)) as controller:
        wq, other = (workq.WorkMgr(1, controller=controller) for _ in range(2))
        took = []
        for _ in tries():
            with Held(wq, tmp_path, declare) as first, Held(wq, tmp_path):
                first.let_go()
                retired = first.unit.result(DEADLINE_S)
                wait_until(lambda: sorted(row.state for row in controller.workers()) == ["active", "retired"])
                begun = time.monotonic()
                assert other.queue(os.getpid).result(DEADLINE_S) == retired
                took.append(time.monotonic() - begun)
            wq.sync(DEADLINE_S)
            if took[-1] < 0.005:
                break
        assert controller.metrics().workers_started == 2
    assert took[-1] < 0.005, took


def declare(fifo: str) -> int:
    with workq.blocking():
        return hold(fifo)


@pytest.mark.slow
def test_a_worker_is_told_to_be_in_each_of_the_five_states(tmp_path: Path) -> None:
    settings = workq.config.DEFAULTS._replace(linger_s=3600.0, sample_s=3600.0)
    with workq.Controller(settings=settings) as controller:
        wq = workq.WorkMgr(1, controller=controller)

        def are(*wanted: str) -> None:
            wait_until(lambda: sorted(row.state for row in controller.workers()) == sorted(wanted), what=str(wanted))

        wq.queue(abs, 1).result(DEADLINE_S)
        are("waiting for units")  # attached to a queue that has nothing to do
        with Held(wq, tmp_path, declare) as first:
            are("blocked")
            with Held(wq, tmp_path):
                are("active", "blocked")
                first.let_go()
                first.unit.result(DEADLINE_S)
                are("active", "retired")
        wq.close()
        are("waiting to attach", "retired")


@pytest.mark.slow
def test_it_is_said_whether_a_blocked_worker_was_declared_or_judged(tmp_path: Path) -> None:
    with workq.Controller() as controller, workq.WorkMgr(1, delete_timeout=0.1, controller=controller) as wq:
        with Held(wq, tmp_path, declare):
            wait_until(lambda: [row.blocked for row in wq.workers()] == ["declared"])
            assert (wq.statistics().blocked_workers, wq.statistics().judged_workers) == (1, 0)
        with Held(wq, tmp_path, hold) as held:
            wq.queue(abs, -1).result(DEADLINE_S)  # somebody waits: it is looked at
            assert [row.blocked for row in wq.workers() if row.unit == held.unit.label] == ["judged"]
            assert (wq.statistics().blocked_workers, wq.statistics().judged_workers) == (1, 1)


def test_unused_workers_end_after_thirty_seconds_unless_a_setting_says_otherwise(controller: workq.Controller) -> None:
    """That they do is a matter of the core, which is told the time; here is what it is told, and where that can be read."""
    assert workq.Settings().idle_timeout_s == controller.settings.idle_timeout_s == 30.0
    with workq.Controller(settings=workq.Settings(idle_timeout_s=5)) as other:
        assert other.settings.idle_timeout_s == 5
    help_text = workq.Controller.__doc__ or ""
    assert "Settings" in help_text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("idle_timeout_s", -3), ("idle_timeout_s", "3"), ("heartbeat_s", -1), ("heartbeat_s", 0), ("start_tries", 0), ("sample_s", 0)],
        *[("batch_units", 1.5), ("grace_s", float("nan")), ("slow_factor", -1), ("output_bytes", None), ("poisoned_after", True)],
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_the_call_by_its_name(name: str, value: object) -> None:
    with pytest.raises(workq.ArgumentError, match=f"^{name} must be"):
        workq.Settings(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(workq.ArgumentError, match=f"^{name} must be"):
        workq.config.DEFAULTS._replace(**{name: value})  # type: ignore[arg-type]


def test_settings_can_be_copied_and_pickled() -> None:
    made = workq.Settings(5, heartbeat_s=2)
    assert (made.idle_timeout_s, made.heartbeat_s) == (5, 2)
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made
    assert made._replace(linger_s=0).linger_s == 0


def test_workers_run_as_the_user_that_runs_the_application(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        assert wq.queue(os.getresuid).result(DEADLINE_S) == os.getresuid()
        assert wq.queue(os.getresgid).result(DEADLINE_S) == os.getresgid()


@pytest.mark.slow
def test_where_a_guard_is_needed_one_error_says_so() -> None:
    ended = application(
        """
        import workq

        def work():
            return 1

        if __name__ == "__main__":
            pass
        wq = workq.WorkMgr(1)
        print(wq.queue(work).result(60))
        """
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    told = ended.stderr.split("The above exception was the direct cause")[-1]
    assert "PicklingError: the main module" in told
    assert 'put what starts the work under `if __name__ == "__main__":`' in told


@pytest.mark.slow
def test_nothing_is_forked_by_default_and_a_fork_beside_threads_is_warned_of_by_name() -> None:
    ended = application(
        """
        import logging, threading, workq

        logging.basicConfig(format="%(levelname)s %(message)s")
        if __name__ == "__main__":
            until = threading.Event()
            thread = threading.Thread(target=until.wait, name="the reader")
            thread.start()
            for method in (None, "fork"):
                with workq.Controller(start_method=method) as controller, workq.WorkMgr(1, controller=controller) as wq:
                    print(controller.start_method, wq.queue(abs, -1).result())
            until.set()
        """
    )
    assert ended.stdout.splitlines() == ["launcher 1", "fork 1"]
    (line,) = ended.stderr.splitlines()
    assert line.startswith("WARNING start_method='fork' while other threads run (")
    assert "the reader" in line


# ---------------------------------------------------------------- figures


def test_the_six_metrics_of_the_original_keep_their_meaning(tmp_path: Path) -> None:
    with workq.Controller() as controller, workq.WorkMgr(2, controller=controller) as wq:
        with Held(wq, tmp_path, spin), Held(wq, tmp_path, spin):
            waiting = [wq.queue(abs, -number) for number in range(3)]
            found = controller.metrics()
            assert (found.active_workers, found.waiting_workers, found.peak_depth) == (2, 0, 3)
        for unit in waiting:
            unit.result(DEADLINE_S)
        wq.sync(DEADLINE_S)
        wait_until(lambda: controller.metrics().waiting_workers == 2)
        found = controller.metrics()
    assert (found.active_workers, found.peak_active_workers, found.peak_depth) == (0, 2, 3)
    assert found.units_per_second > 0
    assert 0 < found.collecting_s < DEADLINE_S
