"""Functions, arguments and results that cannot be pickled or read, or whose pickling misbehaves: that unit fails, and no other."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, application, is_readable, wait_readable, wait_until
from tests.system import hooks

WAIT_S = DEADLINE_S
HERE = os.getpid()


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(2, delete_timeout=0.05) as queue:
        yield queue


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A FIFO's path, for units, and a descriptor that becomes readable once one of them has written to it."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


@contextmanager
def undisturbed(wq: workq.WorkMgr) -> Iterator[None]:
    """Units before, beside and after what is done here have their right results."""
    units = [wq.queue(abs, -number) for number in range(30)]
    yield
    units += [wq.queue(abs, -number) for number in range(30, 60)]
    assert [unit.result(WAIT_S) for unit in units] == list(range(60))


def pid_of(wq: workq.WorkMgr) -> set[int]:
    return {row.pid for row in wq.workers()}


# ---------------------------------------------------------------- in the application, when a unit is queued


def holding(lock: object) -> object:
    return lambda: lock


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "said"),
    [
        (holding(threading.Lock()), (), {}, r"function .*enclosed variable 'lock'.*lock"),
        (threading.Lock().acquire, (), {}, r"function .*acquire.*lock"),
        (functools.partial(abs, threading.Lock()), (), {}, r"function .*partial.*lock"),
        (hooks.AtDump("raise").__reduce__, (), {}, r"function .*LookupError: not today"),
        (hooks.give, (threading.Lock(),), {}, r"argument 1 \(value\) of type _thread.lock cannot be pickled"),
        (hooks.give, (), {"value": sys._getframe()}, r"argument 'value' of type frame cannot be pickled"),
        (hooks.give, (hooks.AtDump("raise"),), {}, r"argument 1 .*AtDump cannot be pickled: LookupError: not today"),
        (hooks.give, (hooks.AtDump("exit"),), {}, r"argument 1 .*AtDump cannot be pickled: SystemExit: goodbye"),
        (hooks.give, (hooks.AtDump("recurse"),), {}, r"argument 1 .*AtDump cannot be pickled: .*recursion"),
        (hooks.give, (hooks.make_nested(100_000),), {}, r"argument 1 .*list cannot be pickled: .*recursion"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_be_pickled_is_refused_and_named_and_nothing_is_queued(wq, function, args, kwargs, said) -> None:  # type: ignore[no-untyped-def]
    with undisturbed(wq):
        with pytest.raises(workq.PicklingError, match=said) as caught:
            wq.queue(function, *args, **kwargs)
        assert ";" in str(caught.value)  # what to do about it
    assert wq.sync(WAIT_S).done == 60


@pytest.mark.parametrize("call", [(print, threading.Lock()), (functools.partial(print, threading.Lock()),)], ids=["argument", "function"])
def test_the_error_of_what_cannot_be_pickled_does_not_keep_the_queue(call: tuple[Any, ...]) -> None:
    short = workq.WorkMgr(1)
    gone = weakref.ref(short)
    with contextlib.suppress(workq.PicklingError):
        short.queue(*call)
    del short
    assert gone() is None, "it would live until the next collection of garbage"


def test_an_argument_that_takes_long_to_pickle_holds_up_nobody_else(wq: workq.WorkMgr) -> None:
    begun, go_on, units = threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        assert go_on.wait(WAIT_S)

    thread = threading.Thread(target=lambda: units.append(wq.queue(hooks.give, hooks.Calls(wait))))
    thread.start()
    assert begun.wait(WAIT_S)
    with undisturbed(wq):
        pass
    go_on.set()
    thread.join(WAIT_S)
    assert units[0].result(WAIT_S) == "pickled"


def test_the_pickling_of_an_argument_may_queue_and_wait_itself(wq: workq.WorkMgr) -> None:
    seen = []
    unit = wq.queue(hooks.give, hooks.Calls(lambda: seen.append(wq.queue(abs, -1).result(WAIT_S))))
    assert unit.result(WAIT_S) == "pickled"
    assert seen == [1]


# ---------------------------------------------------------------- in the worker


@pytest.mark.parametrize(("how", "kind"), [("raise", LookupError), ("exit", workq.RemoteError), ("recurse", RecursionError)])
def test_an_argument_that_cannot_be_loaded_fails_its_unit_and_says_so(wq: workq.WorkMgr, how: str, kind: type[Exception]) -> None:
    with undisturbed(wq):
        unit = wq.queue(hooks.give, hooks.AtLoad(how, -HERE))
        error = unit.exception(WAIT_S)
    assert type(error) is kind
    assert "arguments could not be unpickled in the worker" in "".join(error.__notes__)
    assert unit.label in str(error.__cause__)
    assert unit.worker is not None
    assert unit.worker.name in str(error.__cause__)


@pytest.mark.parametrize(("how", "kind"), [("raise", LookupError), ("exit", workq.RemoteError), ("recurse", RecursionError)])
def test_a_function_that_cannot_be_loaded_fails_each_unit_of_it(wq: workq.WorkMgr, how: str, kind: type[Exception]) -> None:
    with undisturbed(wq):
        units = [wq.queue(hooks.AtLoad(how, -HERE)) for _ in range(3)]
        assert [type(unit.exception(WAIT_S)) for unit in units] == [kind] * 3


def test_a_function_of_a_module_that_workers_lack_fails_and_says_so(wq: workq.WorkMgr) -> None:
    module = types.ModuleType("lacking_in_workers")
    exec("def work(): pass", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        with undisturbed(wq):
            errors = [wq.queue(module.work).exception(WAIT_S) for _ in range(3)]
    finally:
        del sys.modules[module.__name__]
    assert len(set(map(id, errors))) == 3
    for error in errors:
        assert isinstance(error, ModuleNotFoundError)
        assert "The unit's function could not be loaded in the worker" in "".join(error.__notes__)
        assert "lacking_in_workers" in str(error)


@pytest.mark.parametrize("how", ["raise", "exit", "recurse"])
def test_a_result_whose_pickling_misbehaves_fails_its_unit_and_says_so(wq: workq.WorkMgr, how: str) -> None:
    with undisturbed(wq):
        unit = wq.queue(hooks.make_at_dump, how)
        if how == "exit":  # that is the unit's own, as if its function had done it
            with pytest.raises(workq.RemoteError, match="SystemExit") as exited:
                unit.result(WAIT_S)
            assert unit.label in str(exited.value.__cause__)
            return
        with pytest.raises(workq.ResultError, match=r"result of unit .*AtDump, cannot be pickled") as caught:
            unit.result(WAIT_S)
    assert unit.worker is not None
    assert unit.label in str(caught.value)
    assert unit.worker.name in str(caught.value)
    assert "return what it can be made from" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [(hooks.make_lock, (), "_thread.lock"), (hooks.make_generator, (), "generator"), (hooks.make_nested, (100_000,), "list.*recursion")],
)
def test_a_result_that_cannot_be_pickled_fails_its_unit_and_says_so(wq, function, args, said) -> None:  # type: ignore[no-untyped-def]
    with undisturbed(wq):
        with pytest.raises(workq.ResultError, match=rf"result of unit .*{said}"):
            wq.queue(function, *args).result(WAIT_S)


def test_a_result_that_only_cloudpickle_can_send_arrives(wq: workq.WorkMgr) -> None:
    assert wq.queue(hooks.make_lambda).result(WAIT_S)(1) == 2


DYING = [
    (hooks.give, (hooks.AtLoad("die", -HERE),)),
    (hooks.AtLoad("die", -HERE), ()),
    (hooks.make_at_dump, ("die",)),
    (hooks.throw_at_dump, ("die",)),
]


@pytest.mark.parametrize(("function", "args"), DYING, ids=["argument", "function", "result", "exception"])
def test_a_hook_that_ends_the_worker_loses_that_unit_alone(wq, function, args) -> None:  # type: ignore[no-untyped-def]
    with undisturbed(wq):
        unit = wq.queue(function, *args)
        with pytest.raises(workq.WorkerHalted, match="exited with code 3") as caught:
            unit.result(WAIT_S)
    assert caught.value.exit_code == 3
    assert caught.value.halt.unit == unit.label
    assert wq.statistics().lost == 1


HANGING = [
    (lambda fifo: (hooks.give, (hooks.AtLoad(f"hang {fifo}", -HERE),)), True),
    (lambda fifo: (hooks.make_at_dump, (f"hang {fifo}",)), True),
    (lambda fifo: (hooks.throw_at_dump, (f"hang {fifo}",)), False),  # no interrupt strikes there, so the worker is killed
]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["cancel", "timeout"])
@pytest.mark.parametrize(("make", "survives"), HANGING, ids=["argument", "result", "exception"])
def test_a_hook_that_hangs_is_ended_and_others_go_on_meanwhile(wq, fifo, make, survives, by) -> None:  # type: ignore[no-untyped-def]
    path, reader = fifo
    function, args = make(path)
    wq.delete_timeout = WAIT_S if survives else 0.05
    for timeout in (0.5, 5.0, 50.0) if by == "timeout" else (None,):  # a busy machine may not have it hang so soon
        unit = wq.options(timeout=timeout).queue(function, *args)
        wait_until(lambda unit=unit: unit.done() or is_readable(reader))
        if not unit.done():
            break
    with undisturbed(wq):
        if by == "cancel":
            unit.cancel()
            with pytest.raises(workq.UnitCancelled, match=unit.label):
                unit.result(WAIT_S)
        else:
            with pytest.raises(workq.UnitTimeout, match=rf"{unit.label} .*{timeout:g} s in worker_\w+ \(pid \d+\)"):
                unit.result(WAIT_S)
    assert unit.worker is not None or by == "cancel"
    if unit.worker is not None:
        assert (unit.worker.pid in pid_of(wq)) == survives


# ---------------------------------------------------------------- in the application, when a result is read


@pytest.mark.parametrize(("how", "said"), [("raise", "LookupError: not today"), ("exit", "SystemExit: goodbye"), ("recurse", "recursion")])
def test_a_result_that_cannot_be_loaded_fails_for_who_asks_and_says_so(wq: workq.WorkMgr, how: str, said: str) -> None:
    with undisturbed(wq):
        unit = wq.queue(hooks.make_at_load, how, HERE)
        with pytest.raises(workq.ResultError, match=said) as caught:
            unit.result(WAIT_S)
    assert unit.label in str(caught.value)
    assert unit.exception() is caught.value
    assert unit.state.value == "failed"


def test_a_result_of_a_class_that_only_the_worker_has_fails_for_who_asks(wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.ResultError, match="known_here_only"):
        wq.queue(hooks.make_unknown).result(WAIT_S)


def test_a_result_that_takes_long_to_load_holds_up_only_who_asked_for_it(wq: workq.WorkMgr, fifo: tuple[str, int]) -> None:
    path, reader = fifo
    unit = wq.queue(hooks.make_at_load, f"hang {path}", HERE)
    thread = threading.Thread(target=unit.result, args=(WAIT_S,))
    thread.start()
    wait_readable(reader)
    with undisturbed(wq):
        pass
    hooks.NAPPING.set()
    thread.join(WAIT_S)
    hooks.NAPPING.clear()
    assert not thread.is_alive()


def test_classes_of_the_script_arrive_as_arguments_of_any_function() -> None:
    """Also where the function is none of the script, so that the worker has not had to read it before."""
    ended = application(
        """
        import os, workq

        class Names(list): pass

        def make(*names): return Names(names)

        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                print(wq.queue(len, Names("abc")).result(), type(wq.queue(make, 1).result()) is Names)
                large = Names(range(100_000))
                for _ in range(2):  # the second worker is given it in another way
                    print(wq.queue(len, large).result())
                    wq.queue(os._exit, 3).exception()
        """
    )
    assert ended.stdout.split() == ["3", "True", "100000", "100000"], ended.stderr


# ---------------------------------------------------------------- units themselves


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_unit_refuses_to_be_pickled_or_copied_and_says_why(wq, use) -> None:  # type: ignore[no-untyped-def]
    unit = wq.queue(abs, -1)
    with pytest.raises(workq.PicklingError, match=f"unit {unit.label} is a handle .*send its result"):
        use(unit)


def test_a_unit_is_refused_as_an_argument(wq: workq.WorkMgr) -> None:
    unit = wq.queue(abs, -1)
    with pytest.raises(workq.PicklingError, match=r"argument 1 \(value\) of type workq.unit.Unit .*send its result"):
        wq.queue(hooks.give, unit)
