"""Whatever is queued is either sent as it is, or refused with an error that says what and why; hooks may do what they like."""

from __future__ import annotations

import functools
import math
import operator
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from workq.errors import PicklingError, ResultError
from workq.interruption import ExternalInterrupt
from workq.transport import codec


def module_level(first: Any, second: Any = None) -> Any:
    return first, second


class Thing:
    def method(self) -> int:
        return 7

    @classmethod
    def made(cls) -> Thing:
        return cls()

    def __call__(self) -> str:
        return "called"


def there_and_back(function: Any) -> Any:
    return codec.load(codec.dump_function(function)[0])


# -- functions


@pytest.mark.parametrize(
    "function", [module_level, Thing, len, math.sqrt, functools.lru_cache, operator.add], ids=lambda function: function.__name__
)
def test_what_has_a_name_is_sent_as_a_name_that_may_be_kept(function: Any) -> None:
    data, stable = codec.dump_function(function)
    assert stable
    assert len(data) < 100
    assert codec.load(data) is function


def test_a_cached_function_of_a_module_is_a_name() -> None:
    assert codec.dump_function(remembered)[1]
    assert there_and_back(remembered) is remembered


@functools.lru_cache
def remembered(n: int) -> int:
    return n + 1


def test_a_nested_cached_function_is_sent_with_an_empty_cache() -> None:
    @functools.lru_cache(maxsize=5)
    def nested(n: int) -> int:
        return n + 1

    nested(1)
    copy = there_and_back(nested)
    assert copy(1) == 2
    assert copy.cache_info()[:3] == (0, 1, 5)


def test_partials_bound_methods_and_callable_objects_are_captured_each_time() -> None:
    """Arguments are captured at the moment of queueing, and these are arguments too."""
    thing = Thing()
    for function, expected in ((functools.partial(module_level, 1), (1, None)), (thing.method, 7), (thing, "called")):
        data, stable = codec.dump_function(function)
        assert not stable
        assert codec.load(data)() == expected


def make_closure(value: Any) -> Callable[[], Any]:
    return lambda: value


def test_closures_and_lambdas_are_sent_by_value() -> None:
    assert there_and_back(make_closure([1, 2]))() == [1, 2]
    assert there_and_back(lambda n: n * 2)(4) == 8


def with_default(value: Any) -> Any:
    return types.FunctionType((lambda n=None: n).__code__, {}, "f", (value,))


def in_notebook(source: str, **names: Any) -> Any:
    """Return the last function that a source defines, as a notebook would have it."""
    cell = {"__name__": "notebook_that_is_no_module", **names}
    exec(source, cell)
    return list(cell.values())[-1]


@pytest.mark.parametrize(
    ("function", "stable"),
    [
        (lambda n: n.upper(), True),
        (lambda n: math.sqrt(len(n)), True),
        (in_notebook("import math\ndef f(n): return [math.sqrt(m) for m in n]"), True),
        (in_notebook("def f(n): return g(n)", g=module_level), True),
        (in_notebook("def f(n: int = 5, *, m=(1, 'x')): return n"), True),
        (in_notebook("def f(n): return not_defined_yet(n)"), False),
        (in_notebook("N = 5\ndef f(n): return n + N"), False),
        (in_notebook("L = []\ndef f(n): return lambda: L"), False),
        (in_notebook("def g(): pass\ndef f(n): return g()"), False),
        (in_notebook("def f(n=[]): return n"), False),
        (in_notebook("def f(*, n={}): return n"), False),
        (in_notebook("def f(n): return n\nf.count = 0\nlast = f"), False),
        (make_closure(1), False),
    ],
)
def test_a_by_value_pickle_is_kept_only_where_nothing_in_it_can_change(function: Any, stable: bool) -> None:
    assert codec.dump_function(function)[1] is stable


def test_a_changed_global_is_seen_by_the_next_use() -> None:
    cell: dict[str, Any] = {"__name__": "notebook_that_is_no_module", "N": 1}
    exec("def f(): return N", cell)
    assert there_and_back(cell["f"])() == 1
    cell["N"] = 2
    assert there_and_back(cell["f"])() == 2


# -- hooks that do what they like


def hook(what: str) -> Any:
    """Return an object whose pickling does that."""

    class Hooked:
        def __reduce__(self) -> Any:
            exec(what)
            return str, ()

        def __call__(self) -> None: ...

        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    return Hooked()


HOOKS = [
    "raise ValueError('no')",
    "import sys; sys.exit(1)",
    "raise GeneratorExit",
    "f = lambda: f()\nf()",
    "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})",
    "import asyncio; raise asyncio.CancelledError",
]


@pytest.mark.parametrize("what", HOOKS)
def test_a_hook_cannot_do_more_than_refuse(what: str) -> None:
    with pytest.raises(PicklingError, match="cannot send function"):
        codec.dump_function(hook(what))
    with pytest.raises(PicklingError, match="argument 2"):
        codec.dump_arguments((1, hook(what), 3), {})
    with pytest.raises(ResultError, match=r"result of unit q:1, of type .*Hooked, cannot be pickled"):
        codec.dump_result([hook(what)][0], "q:1")


@pytest.mark.parametrize("send", [codec.dump_function, lambda value: codec.dump_arguments((value,), {})])
def test_a_keyboard_interrupt_passes(send: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        send(hook("raise KeyboardInterrupt"))


def test_an_interrupt_of_the_unit_passes_while_its_result_is_pickled() -> None:
    with pytest.raises(ExternalInterrupt):
        codec.dump_result(hook("from workq.interruption import ExternalInterrupt; raise ExternalInterrupt"))


LOCK = threading.Lock()


def nested_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: LOCK, r"<lambda>: its global 'LOCK' of type _thread.lock: TypeError: cannot pickle"),
        (make_closure(LOCK), r"make_closure.<locals>.<lambda>: its enclosed variable 'value' of type _thread.lock.*pass what it takes"),
        (with_default(LOCK), r"its default of 'n' of type _thread.lock"),
        (LOCK.acquire, r"cannot send function lock.acquire: .*queue a function of a module"),
        (functools.partial(module_level, LOCK), r"function of type functools.partial: TypeError"),
    ],
)
def test_a_function_that_cannot_be_sent_is_named_with_the_reason(function: Any, said: str) -> None:
    with pytest.raises(PicklingError, match=said):
        codec.dump_function(function)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((1, LOCK), {}, r"^argument 2 \(second\) of type _thread.lock cannot be pickled: TypeError"),
        ((1, [LOCK]), {}, r"^argument 2 \(second\) of type list "),
        ((1,), {"second": LOCK}, r"^argument 'second' of type _thread.lock "),
        ((nested_list(100_000),), {}, r"^argument 1 \(first\) of type list cannot be pickled: .*recursion"),
        ((x for x in ()), {}, None),
    ],
)
def test_an_argument_that_cannot_be_sent_is_named(args: Any, kwargs: Any, said: str | None) -> None:
    if isinstance(args, Iterator):
        args, said = (args,), r"^argument 1 \(first\) of type generator "
    with pytest.raises(PicklingError, match=said):
        codec.dump_arguments(args, kwargs, module_level)


def test_a_hook_that_refuses_only_once_is_told_all_the_same() -> None:
    calls: list[int] = []

    class Moody:
        def __reduce__(self) -> Any:
            calls.append(1)
            if len(calls) < 3:
                raise ValueError("not today")
            return str, ()

    with pytest.raises(PicklingError, match="the arguments of type tuple cannot be pickled: ValueError: not today"):
        codec.dump_arguments((Moody(),), {})


def test_arguments_without_keywords_are_a_tuple_and_with_keywords_a_pair() -> None:
    assert pickle.loads(codec.dump_arguments((1, make_closure(2)), {}))[1]() == 2
    args, kwargs = pickle.loads(codec.dump_arguments((1,), {"f": make_closure(2)}))
    assert (args, kwargs["f"]()) == ((1,), 2)


def test_a_result_by_value() -> None:
    assert pickle.loads(codec.dump_result(make_closure(3)))() == 3


# -- loading


def test_a_missing_module_is_reported_as_it_is() -> None:
    data = pickle.dumps(module_level, 5).replace(__name__.encode(), b"x" * len(__name__))
    with pytest.raises(ModuleNotFoundError):
        codec.load(data)


def test_the_heavy_modules_come_only_when_they_are_needed() -> None:
    code = "import sys; from workq.transport import codec; codec.dump_function(len); codec.load(codec.dump_function(print)[0]); "
    heavy = {"ast", "cloudpickle", "logging", "multiprocessing", "pickle", "threading", "traceback", "typing"}
    code += f"print(sorted({heavy} & set(sys.modules)))"
    root = __file__.rsplit("/tests/", 1)[0]
    answer = subprocess.run([sys.executable, "-S", "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
