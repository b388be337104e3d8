"""The face: what its docstrings say holds on real processes, and what cannot be is refused at the call."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, ROOT, start_application, wait_readable, wait_until
from workq.config import DEFAULTS
from workq.errors import ArgumentError, CategoryError

pytestmark = pytest.mark.slow


class Scale:
    """Something whose methods can be queued."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def of(self, n: int) -> int:
        return self.factor * n

    @classmethod
    def name(cls, n: int) -> tuple[str, int]:
        return cls.__name__, n

    def __call__(self, n: int) -> int:
        return -self.factor * n


def adder(m: int) -> Callable[[int], int]:
    return lambda n: n + m


def fail(text: str) -> None:
    raise LookupError(text)


def hold(fifo: str) -> None:
    """Run until the other end of the fifo is closed."""
    with open(fifo, "rb") as file:
        file.read()


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    patient = DEFAULTS._replace(silent_after_s=3600.0)  # however slow a worker is to begin, no other is started for its unit
    with workq.Controller(name="face", settings=patient) as controller:
        queue = workq.WorkMgr(2, name="face", controller=controller)
        yield queue
        queue.close()


class Held:
    """A unit that runs until it is let go."""

    def __init__(self, wq: Any, folder: Any, name: str = "fifo") -> None:
        self.fifo = str(folder / name)
        os.mkfifo(self.fifo)
        self.unit = wq.queue(hold, self.fifo)
        self._file = open(self.fifo, "wb")  # noqa: SIM115  let_go closes it. Waits until the unit has opened its end

    def let_go(self) -> None:
        self._file.close()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *exc: object) -> None:
        self.let_go()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_workers", value) for value in (-1, 1.5, "2", True)]
    + [("delete_timeout", value) for value in (-1, float("nan"), float("inf"), "1", None)]
    + [("output", value) for value in ("", "Stream", None)]
    + [("name", value) for value in (7, b"x")]
    + [("controller", value) for value in (7, "x")],
)
def test_a_work_queue_that_cannot_be_names_the_argument(argument: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=argument):
        workq.WorkMgr(**{argument: value})


@pytest.mark.parametrize("name", ["nope", "default", "", 7, ["Default"]])
def test_an_unknown_category_names_those_that_exist(name: Any) -> None:
    with pytest.raises(CategoryError, match="Default, SQL, Utility"):
        workq.WorkMgr(category=name)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("timeout", value) for value in (0, -1, "1", float("nan"), float("inf"), True)]
    + [("retries", value) for value in (-1, 1.0, "1", None, True)]
    + [("priority", value) for value in (1.0, "1", None, True)]
    + [("name", value) for value in (7, b"x")],
)
def test_options_that_cannot_be_name_the_argument(argument: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=argument):
        workq.WorkMgr(1).options(**{argument: value})


@pytest.mark.parametrize("argument", ["timeout", "retries", "priority", "name", "memory"])
def test_an_option_that_does_not_exist_is_refused(argument: str) -> None:
    if argument == "memory":
        with pytest.raises(TypeError, match="memory"):
            workq.WorkMgr(1).options(memory=1)  # type: ignore[call-arg]
    else:
        workq.WorkMgr(1).options(**{argument: None if argument in ("timeout", "name") else 0})


@pytest.mark.parametrize(
    ("argument", "value"),
    [("name", value) for value in ("", "a b", "ä", "x" * 65, 7, None)]
    + [
        (argument, value)
        for argument in ("default_workers", "max_workers", "max_active_workers", "max_total_workers")
        for value in (0, -1, 1.5, "2", True)
    ]
    + [("preload", value) for value in ("json", [1], 7)]
    + [("initializer", value) for value in (7, "print")]
    + [("initializer_args", value) for value in (7, None)]
    + [("always_queue", value) for value in (1, "no", None)],
)
def test_a_category_that_cannot_be_names_the_argument(argument: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=argument):
        workq.Category(**{"name": "reports", argument: value})


@pytest.mark.parametrize("wait", ["sync", "wait_one", "as_completed", "result", "exception", "map"])
@pytest.mark.parametrize("timeout", ["1", float("nan"), True])
def test_a_timeout_that_is_no_number_of_seconds_is_named(wait: str, timeout: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match="timeout"):
        if wait == "map":
            next(wq.map(abs, [1], timeout=timeout))
        elif wait == "as_completed":
            next(wq.as_completed(timeout))
        else:
            getattr(wq if hasattr(wq, wait) else wq.queue(abs, 1), wait)(timeout)


@pytest.mark.parametrize("fn", [None, 7, "len"])
def test_what_cannot_be_called_is_not_queued(fn: Any, wq: workq.WorkMgr) -> None:
    for queue in (wq.queue, wq.options(retries=1).queue):
        with pytest.raises(ArgumentError, match="fn"):
            queue(fn, 1)
    with pytest.raises(ArgumentError, match="fn"):
        next(iter(wq.map(fn, [1])))
    assert wq.statistics().queued == 0


@pytest.mark.parametrize(
    ("arguments", "named", "match"),
    [((), {}, "iterable"), ((7,), {}, "iterable"), (([1],), {"look_ahead": 0}, "look_ahead"), (([1],), {"look_ahead": 1.5}, "look_ahead")],
)
def test_map_names_what_it_cannot_take(arguments: tuple[Any, ...], named: dict[str, Any], match: str, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match=match):
        wq.map(abs, *arguments, **named)


@pytest.mark.parametrize("argument", [threading.Lock(), sys.stdout, (n for n in ())])
def test_an_argument_that_cannot_be_pickled_is_named_and_nothing_is_queued(argument: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.PicklingError, match="argument 2"):
        wq.queue(print, 1, argument)
    with pytest.raises(workq.PicklingError, match="'end'"):
        wq.queue(print, 1, end=argument)
    assert wq.statistics().queued == 0


@pytest.mark.parametrize("callback", [None, 7])
def test_a_callback_that_cannot_be_called_is_refused(callback: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match="callback"):
        wq.controller.on_halt(callback)
    with pytest.raises(ArgumentError, match="fn"):
        wq.queue(abs, 1).add_done_callback(callback)


# ---------------------------------------------------------------- what can be queued


def test_methods_closures_partials_and_callable_objects_can_be_queued(wq: workq.WorkMgr) -> None:
    scale = Scale(3)
    local = 10
    functions = [
        scale.of,
        Scale.name,
        scale,
        adder(7),
        lambda n: n * local,
        functools.partial(pow, 2),
        functools.partial(scale.of),
        "abcd".count,
    ]
    arguments = [4, 4, 4, 4, 4, 4, 4, "c"]
    units = [wq.queue(fn, argument) for fn, argument in zip(functions, arguments, strict=True)]
    assert [unit.result(DEADLINE_S) for unit in units] == [12, ("Scale", 4), -12, 11, 40, 16, 12, 1]


def test_arguments_are_captured_when_the_unit_is_queued(wq: workq.WorkMgr, tmp_path: Any) -> None:
    numbers = [1, 2]
    with Held(wq, tmp_path, "one"), Held(wq, tmp_path, "two"):
        unit = wq.queue(sum, numbers)
        numbers.append(100)
    assert unit.result(DEADLINE_S) == 3


def test_functions_of_a_prompt_can_be_queued_and_defined_anew() -> None:
    session = """
import workq
def twice(n):
    return 2 * n

class Thing:
    def __init__(self, n): self.n = n
    def get(self): return self.n

wq = workq.WorkMgr(1)
print("function", wq.queue(twice, 21).result(60))
print("method", wq.queue(Thing(5).get).result(60))
print("lambda", wq.queue(lambda: 7).result(60))
def twice(n):
    return 200 * n

print("anew", wq.queue(twice, 21).result(60))
wq.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-i"], input=session, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert answer.stdout.split("\n")[:4] == ["function 42", "method 5", "lambda 7", "anew 4200"], answer.stderr


def test_functions_of_notebook_cells_can_be_queued_and_defined_anew() -> None:
    cells = [
        "def outer(n): return inner(n) + 1\ndef inner(n): return n * 10\nwq = workq.WorkMgr(1)",
        "print(wq.queue(outer, 4).result(60))",
        "def inner(n): return n * 100",
        "print(wq.queue(outer, 4).result(60)); wq.close()",
    ]
    code = f"""
        import sys, types, workq
        main = sys.modules["__main__"] = types.ModuleType("__main__")  # as a kernel's: no file behind it
        main.workq = workq
        for number, cell in enumerate({cells!r}):
            exec(compile(cell, f"<cell {{number}}>", "exec"), main.__dict__)
    """
    with start_application(code) as app:
        assert app.finish().stdout.split() == ["41", "401"]


@pytest.mark.parametrize("guard", ['if __name__ == "__main__":', "if True:"])
def test_functions_of_a_script_can_be_queued_with_and_without_a_guard(guard: str) -> None:
    code = f"""
        import workq
        def after(n): return n + 1
        {guard}
            print("once")
            wq = workq.WorkMgr(2)
            print(wq.queue(after, 1).result(60))
            wq.close()
    """
    with start_application(code) as app:
        ended = app.finish()
    assert ended.stdout.split() == ["once", "2"], ended.stderr


def test_functions_of_a_package_run_by_its_name_can_be_queued(tmp_path: Any) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("NUMBER = 41\n")
    (package / "__main__.py").write_text(
        "import workq\nfrom . import other\ndef more(n): return n + other.NUMBER\n"
        "if __name__ == '__main__':\n    with workq.WorkMgr(1) as wq: print(wq.queue(more, 1).result(60))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-m", "package"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stdout == "42\n", answer.stderr


# ---------------------------------------------------------------- waiting


def test_wait_one_and_as_completed_hand_each_unit_out_once(wq: workq.WorkMgr) -> None:
    units = [wq.queue(abs, -n) for n in range(50)]
    first = wq.wait_one(DEADLINE_S)
    rest = list(wq.as_completed(DEADLINE_S))
    assert {first, *rest} == set(units)
    assert len(rest) == 49
    assert wq.wait_one() is None


def test_sync_raises_the_failures_nobody_asked_for_in_order_and_runs_everything(wq: workq.WorkMgr) -> None:
    units = [wq.queue(fail, str(n)) if n % 3 == 0 else wq.queue(abs, n) for n in range(10)]
    assert isinstance(units[3].exception(DEADLINE_S), LookupError)
    with pytest.raises(workq.WorkErrors) as caught:
        wq.sync(DEADLINE_S)
    assert [error.args[0] for error in caught.value.exceptions] == ["0", "6", "9"]
    assert all(unit.done() for unit in units)
    assert wq.sync().failed == 4  # told once, counted for ever


def test_a_timeout_of_a_wait_loses_nothing(wq: workq.WorkMgr, tmp_path: Any) -> None:
    with Held(wq, tmp_path) as held:
        for wait in (wq.sync, wq.wait_one, held.unit.result, held.unit.exception):
            with pytest.raises(TimeoutError):
                wait(0.01)
            with pytest.raises(TimeoutError):
                wait(0)
        with pytest.raises(TimeoutError):
            next(wq.as_completed(0.01))
        assert held.unit.running()
    assert wq.sync(DEADLINE_S).done == 1


def test_map_reads_its_input_only_as_far_ahead_as_it_was_told(wq: workq.WorkMgr) -> None:
    read = []
    results = wq.map(abs, (read.append(n) or -n for n in range(10**9)), look_ahead=5)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert len(read) <= 25
    results.close()  # type: ignore[attr-defined]
    wq.sync(DEADLINE_S)


def test_closing_map_early_cancels_the_rest(wq: workq.WorkMgr, tmp_path: Any) -> None:
    with Held(wq, tmp_path, "one"), Held(wq, tmp_path, "two"):
        results = wq.map(abs, range(10), look_ahead=4)
        with pytest.raises(TimeoutError):
            next(wq.map(abs, range(10), look_ahead=4, timeout=0.01))
        del results
        assert wq.statistics().cancelled == 4
    assert wq.sync(DEADLINE_S).done == 2


def test_a_queue_closed_takes_no_more_and_says_its_name(wq: workq.WorkMgr) -> None:
    wq.close()
    wq.close()
    for queue in (wq.queue, wq.options(priority=1).queue):
        with pytest.raises(workq.QueueClosed, match="face"):
            queue(abs, 1)


def test_a_unit_of_any_priority_is_run_when_it_is_the_first(wq: workq.WorkMgr) -> None:
    for priority in (5, -5):
        assert wq.options(priority=priority).queue(abs, -1).result(DEADLINE_S) == 1


# ---------------------------------------------------------------- seeing


def test_workers_shows_each_worker_as_a_table_and_as_data(wq: workq.WorkMgr, tmp_path: Any) -> None:
    with Held(wq, tmp_path) as held:
        (row,) = wq.workers()
        assert (row.state, row.queue, row.unit, row.category) == ("active", "face", held.unit.label, "Default")
        assert str(uuid.UUID(row.process_info_id)) == row.process_info_id
        assert row.name == "worker_" + row.process_info_id[:8]
        os.kill(row.pid, 0)
        assert row.rss_bytes is not None
        assert row.rss_bytes > 2**20
        assert row.cpu_s is not None
        assert row.cpu_s >= 0
        assert row.since_s >= 0
        lines = repr(wq.workers()).splitlines()
        assert len(lines) == 2
        assert lines[0].split() == ["pid", "name", "state", "queue", "unit", "since", "units", "memory", "cpu"]
        assert lines[1].index(row.name) == lines[0].index("name")
        assert wq.workers().as_dicts()[0]["pid"] == row.pid
        assert wq.metrics().active_workers == 1
    held.unit.result(DEADLINE_S)
    assert wq.workers()[0].units_done == 1
    assert wq.metrics().units_done == 1
    assert len(repr(wq.metrics()).splitlines()) == len(wq.metrics().as_dict()) - 2  # all but the names of categories and themselves


def test_the_time_since_when_is_never_negative(wq: workq.WorkMgr) -> None:
    units = [wq.queue(abs, 1) for _ in range(2000)]
    seen = [row.since_s for _ in range(200) for row in wq.workers()]
    assert all(unit.result(DEADLINE_S) == 1 for unit in units)
    assert min(seen, default=0.0) >= 0.0


def test_counters_never_fall_and_queues_that_were_deleted_are_forgotten() -> None:
    with workq.Controller() as controller:
        for number in range(1, 30):
            with workq.WorkMgr(1, controller=controller) as wq:
                wq.queue(adder(number), 1).result(DEADLINE_S)
                wq.queue(abs, 1).result(DEADLINE_S)
            assert controller.metrics().units_done == 2 * number
        del wq
        wait_until(lambda: gc.collect() is not None and len(controller.queues) <= 1)
        assert controller.metrics().units_done == 58
        assert controller.metrics().workers_started == 1


def test_top_shows_the_name_of_a_worker(wq: workq.WorkMgr) -> None:
    wq.queue(abs, 1).result(DEADLINE_S)
    (row,) = wq.workers()
    answer = subprocess.run(["ps", "-o", "comm=", "-p", str(row.pid)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == row.name


def test_the_prompt_has_workers_and_metrics_of_the_default_controller() -> None:
    with start_application(
        """
        import workq
        if __name__ == "__main__":
            print(workq.workers(), workq.metrics().workers_started)
            with workq.WorkMgr(1) as wq:
                wq.queue(len, "four").result()
                print(len(workq.workers()), workq.metrics().units_done)
        """
    ) as app:
        assert app.finish().stdout.splitlines() == ["no workers 0", "1 1"]


# ---------------------------------------------------------------- inside a unit


def who_is_a_worker_job() -> dict[str, bool]:
    """Ask in the unit, in a thread of it, and in children that it makes in every way."""
    import multiprocessing

    seen = {"unit": workq.is_worker_job(), "method": workq.WorkMgr.is_worker_job()}
    thread = threading.Thread(target=lambda: seen.update(thread=workq.is_worker_job()))
    thread.start()
    thread.join()
    code = "import sys, workq; sys.exit(workq.is_worker_job())"
    seen["subprocess"] = bool(subprocess.run([sys.executable, "-c", code], check=False).returncode)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            seen[method] = pool.apply(workq.is_worker_job)
    return seen


in_initializer: list[bool] = []


def note_initializer() -> None:
    in_initializer.append(workq.is_worker_job())


def test_a_worker_job_is_a_unit_its_threads_and_the_initializer_and_nothing_else() -> None:
    with workq.Controller() as controller:
        controller.add_category(workq.Category("prepared", initializer=note_initializer))
        with workq.WorkMgr(1, category="prepared", controller=controller) as wq:
            assert wq.queue(lambda: in_initializer).result(DEADLINE_S) == []  # travels by value
            assert wq.queue(read_initializer).result(DEADLINE_S) == [True]
            seen = wq.queue(who_is_a_worker_job).result(DEADLINE_S)
    assert seen == {"unit": True, "method": True, "thread": True, "subprocess": False, "fork": False, "spawn": False}


def test_an_application_and_its_children_are_no_worker_jobs() -> None:
    code = """
        from tests.system.test_face import who_is_a_worker_job
        import workq
        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                wq.queue(abs, 1).result()
                print(who_is_a_worker_job())
    """
    with start_application(code) as app:
        ended = app.finish()
    assert ended.stdout.count("False") == 6, ended.stderr


def read_initializer() -> list[bool]:
    return in_initializer


def who_am_i() -> tuple[int, str, str, int, str]:
    unit = workq.current_unit()
    assert unit is not None
    return unit.id, unit.name, unit.queue, unit.attempt, unit.worker


def test_a_unit_knows_who_it_is(wq: workq.WorkMgr) -> None:
    units = [wq.options(name="third").queue(who_am_i) for _ in range(100)]
    for unit in units:
        assert unit.result(DEADLINE_S) == (unit.id, "third", "face", 1, unit.worker.name)
    assert workq.current_unit() is None


def declare(fifo: str) -> bool:
    with workq.blocking():
        with workq.blocking(), open(fifo, "rb") as file:
            file.read()
    return True


def test_a_unit_that_declares_its_wait_is_shown_as_blocked(wq: workq.WorkMgr, tmp_path: Any) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    unit = wq.queue(declare, fifo)
    with open(fifo, "wb"):
        wait_until(lambda: wq.workers()[0].state == "blocked")
        assert wq.workers()[0].blocked == "declared"
        assert wq.num_active_workers == 0
    assert unit.result(DEADLINE_S)
    wait_until(lambda: wq.workers()[0].state != "blocked")


def test_importing_workq_starts_nothing_and_loads_no_manager() -> None:
    code = "import sys, threading, workq; print(threading.active_count(), 'workq.manager' in sys.modules, 'psutil' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.split() == ["1", "False", "False"]


def test_importing_workq_costs_less_than_importing_the_standard_pool() -> None:
    """By what it loads, and not by the clock."""

    def loaded(module: str) -> int:
        code = f"import sys; before = set(sys.modules); import {module}; print(len(set(sys.modules) - before))"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout)

    assert loaded("workq") < loaded("concurrent.futures.process") / 5


# ---------------------------------------------------------------- Futures


def test_whoever_takes_futures_takes_units(wq: workq.WorkMgr) -> None:
    import asyncio
    import concurrent.futures

    units = [wq.queue(abs, -n) for n in range(10)]
    assert set(concurrent.futures.wait(units, DEADLINE_S).done) == set(units)
    assert {unit.result() for unit in concurrent.futures.as_completed(units, DEADLINE_S)} == set(range(10))

    async def gather() -> list[int]:
        return await asyncio.gather(*(wq.queue(abs, -n) for n in range(10)))

    assert asyncio.run(gather()) == list(range(10))


def test_done_callbacks_run_one_at_a_time_in_the_delivery_thread(wq: workq.WorkMgr) -> None:
    read, write = os.pipe()
    names = []

    def note(unit: Any) -> None:
        names.append(threading.current_thread().name)
        if len(names) == 20:
            os.write(write, b"x")

    for _ in range(20):
        wq.queue(time.monotonic).add_done_callback(note)
    try:
        wait_readable(read)
    finally:
        os.close(read)
        os.close(write)
    assert set(names) <= {"face-delivery", threading.current_thread().name}


def test_dir_shows_the_public_names_and_no_others() -> None:
    noise = [name for name in dir(workq) if name not in workq.__all__ and not name.startswith("__")]
    assert noise == []
    assert {"Settings", "UnitState", "Metrics", "QueueStatistics", "WorkerTable", "progress"} <= set(workq.__all__)
    for name in workq.__all__:
        assert getattr(workq, name) is not None


def test_help_shows_examples_that_a_reader_can_type() -> None:
    import pydoc

    shown = pydoc.render_doc(workq.WorkMgr)
    assert "getfixture" not in shown
    assert ">>> wq.queue(sorted, [3, 1, 2]).result()" in shown
