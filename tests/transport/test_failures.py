"""An exception comes back as itself, or as a RemoteError that says all about it; the worker's traceback is always there."""

from __future__ import annotations

import asyncio
import marshal
import pickle
import sys
import traceback
import weakref
from typing import Any

import pytest

from workq.errors import RemoteError, RemoteTraceback
from workq.interruption import ExternalInterrupt
from workq.transport import codec, failures


def raised(error: BaseException) -> BaseException:
    """Return the exception with the traceback that a unit's would have."""
    try:
        raise error
    except BaseException as caught:
        return caught


def there_and_back(error: BaseException) -> BaseException:
    return codec.load_error(codec.dump_error(error, "q:1 work"))


class TwoArguments(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code


class OnlyKeywords(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class LosesItsNotes(Exception):
    def __reduce__(self) -> Any:
        return LosesItsNotes, self.args


SAME = [
    ValueError("plain", 1, None),
    KeyError("key"),
    OSError(2, "No such file", "/nowhere"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    TwoArguments(5, "odd"),
    OnlyKeywords(code=3),
    ExceptionGroup("several", [ValueError(1), TypeError(2)]),
    StopIteration(5),
    AssertionError(),
    ValueError(float("nan")),
    ValueError(object()),
    ImportError("no", name="module", path="/path"),
]


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
def test_an_exception_comes_back_as_itself(error: Exception) -> None:
    back = there_and_back(raised(error))
    assert type(back) is type(error)
    assert len(back.args) == len(error.args)
    assert [type(each) for each in back.args] == [type(each) for each in error.args]
    assert back.__dict__.keys() == error.__dict__.keys()
    if " at 0x" not in str(error):
        assert str(back) == str(error)


def test_its_cause_is_the_workers_traceback_as_text() -> None:
    back = there_and_back(raised(ValueError("here")))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in raised\n    raise error\n" in back.__cause__.text
    assert back.__cause__.text.startswith("(unit q:1 work)\nTraceback (most recent call last):\n")
    assert back.__cause__.text.endswith("ValueError: here\n")


def chained() -> BaseException:
    try:
        try:
            raise LookupError("first")
        except LookupError:
            raise TwoArguments(2, "second")
    except TwoArguments as error:
        return raised_from(ValueError("third"), error)


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_causes_and_contexts_are_reachable_as_objects_and_as_text() -> None:
    back = there_and_back(chained())
    assert isinstance(back.__cause__, RemoteTraceback)
    second = back.__cause__.__cause__
    assert (type(second), str(second)) == (TwoArguments, "second (2)")
    assert second is not None
    assert repr(second.__context__) == "LookupError('first')"
    assert [back.__cause__.text.count(word) for word in ("LookupError: first", "TwoArguments: second (2)", "ValueError: third")] == [
        1,
        1,
        1,
    ]


def test_a_suppressed_context_stays_away() -> None:
    try:
        try:
            raise LookupError("hidden")
        except LookupError:
            raise ValueError("shown") from None
    except ValueError as error:
        back = there_and_back(error)
    assert back.__cause__ is not None
    assert back.__cause__.__context__ is None
    assert "hidden" not in str(back.__cause__)


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    back = there_and_back(raised(one))
    assert back.__cause__ is not None
    assert repr(back.__cause__.__cause__) == "ValueError('other')"
    assert back.__cause__.__cause__ is not None
    assert back.__cause__.__cause__.__cause__ is None


@pytest.mark.parametrize("kind", [ValueError, LosesItsNotes])
def test_notes_come_along_once(kind: type[Exception]) -> None:
    error = kind("x")
    error.add_note("a note")
    back = there_and_back(raised(error))
    assert back.__notes__ == ["a note"]


def reducing(what: str) -> Exception:
    class Reducing(Exception):
        def __reduce__(self) -> Any:
            exec(what)

        __reduce_ex__ = lambda self, protocol: self.__reduce__()  # noqa: E731

    return Reducing("x")


class Unloadable(Exception):
    def __init__(self, *args: object) -> None:
        if args:
            raise RuntimeError("cannot be made with arguments")
        super().__init__()
        self.args = ("an argument",)

    def __new__(cls, *args: object) -> Any:
        if args:
            raise RuntimeError("not even so")
        return super().__new__(cls)


class ChangesItself(Exception):
    def __reduce__(self) -> Any:
        return ValueError, self.args


class BadWords(Exception):
    def __str__(self) -> str:
        raise SystemExit("in __str__")

    def __repr__(self) -> str:
        raise SystemExit("in __repr__")


REPLACED = [
    Unloadable(),
    ValueError(lambda: (yield), sys._getframe()),
    ValueError("x" * (failures.ERROR_BYTES + 1)),
    ExceptionGroup("g", [ValueError(sys._getframe())]),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    ExternalInterrupt(5),
    BaseExceptionGroup("g", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", REPLACED, ids=lambda error: type(error).__name__)
def test_what_cannot_come_back_as_itself_is_a_remote_error(error: BaseException) -> None:
    back = there_and_back(raised(error))
    assert isinstance(back, RemoteError)
    assert type(error).__qualname__ in back.type_name
    assert type(error).__name__ in back.text
    assert "in raised\n" in back.traceback
    assert isinstance(back.__cause__, RemoteTraceback)


@pytest.mark.parametrize("what", ["raise ValueError", "import sys; sys.exit(1)", "f = lambda: f()\nf()", "raise KeyboardInterrupt"])
def test_one_whose_hooks_refuse_is_put_together_from_its_parts(what: str) -> None:
    error = reducing(what)
    back = there_and_back(raised(error))
    assert (type(back), back.args) == (type(error), ("x",))


def test_an_interrupt_that_strikes_in_a_hook_passes() -> None:
    with pytest.raises(ExternalInterrupt):
        codec.dump_error(reducing("from workq.interruption import ExternalInterrupt; raise ExternalInterrupt(1)"))


def test_one_that_pickles_as_something_else_keeps_its_type() -> None:
    assert type(there_and_back(raised(ChangesItself("x")))) is ChangesItself


def test_the_code_of_a_system_exit_is_in_the_text() -> None:
    assert str(there_and_back(raised(SystemExit(3)))) == "SystemExit: SystemExit(3)"


def test_one_whose_words_exit_is_told_without_them() -> None:
    back = there_and_back(raised(BadWords("x")))
    assert type(back) is BadWords
    assert "in raised\n" in str(back.__cause__)


def test_an_attribute_that_cannot_be_pickled_is_told_by_a_remote_error() -> None:
    error: Any = ValueError("x")
    error.frame = sys._getframe()
    assert isinstance(there_and_back(raised(error)), RemoteError)


def test_an_endless_recursion_is_told_in_bounded_length() -> None:
    def one(n: int) -> int:
        return other(n + 1)

    def other(n: int) -> int:
        return one(n + 1)

    try:
        one(0)
    except RecursionError as error:
        data = codec.dump_error(error)
    assert len(data) < 2 * failures.TRACEBACK_CHARACTERS
    back = codec.load_error(data)
    assert type(back) is RecursionError
    assert "characters cut" in str(back.__cause__)
    assert "maximum recursion depth exceeded" in str(back.__cause__)


class Thing:
    """Something that a frame holds."""


def run_out_of_memory(seen: list[weakref.ref[Thing]], error: Exception) -> None:
    thing = Thing()
    seen.append(weakref.ref(thing))
    raise error


@pytest.mark.parametrize(("error", "held"), [(MemoryError(), False), (ValueError(), True)])
def test_what_the_frames_of_a_memory_error_hold_is_given_back_before_it_is_told(error: Exception, held: bool) -> None:
    seen: list[weakref.ref[Thing]] = []
    with pytest.raises(type(error)) as caught:
        run_out_of_memory(seen, error)
    assert type(there_and_back(caught.value)) is type(error)
    assert (seen[0]() is not None) == held


def test_everything_is_bounded() -> None:
    error = ValueError("x" * 5_000_000)
    for n in range(1000):
        error.add_note(f"{n} " + "y" * 100_000)
    assert len(codec.dump_error(raised(error))) < 4 << 20


def test_workqs_own_frames_at_the_top_are_left_out() -> None:
    def unit(_: object) -> None:
        raise ValueError("here")

    inside = caught_in_workq(unit)
    assert inside.tb_frame.f_code.co_filename == failures.__file__
    first = failures.own_frames_skipped(inside)
    assert first is not None
    assert first.tb_frame.f_code is unit.__code__


def caught_in_workq(unit: Any) -> Any:
    """Return a traceback that begins in a frame of workq, as each unit's does in the worker."""
    with pytest.raises(ValueError, match="here") as caught:
        failures.put_together(type("Odd", (Exception,), {"__new__": unit}), (), {})
    frames = caught.value.__traceback__
    assert frames is not None
    return frames.tb_next


@pytest.mark.parametrize(
    "data", [b"", b"junk", marshal.dumps(5), marshal.dumps((1, 2)), marshal.dumps(("a", "b", "c", b"junk", [], [], []))]
)
def test_reading_one_never_raises(data: bytes) -> None:
    assert isinstance(codec.load_error(data), RemoteError)


def test_one_whose_class_is_not_here_is_a_remote_error() -> None:
    data = pickle.dumps(ValueError("x"), 5).replace(b"ValueError", b"NoSuchName")
    frame = marshal.dumps(("NoSuchName", "NoSuchName('x')", "Traceback\n", data, ["note"], [], []))
    back = codec.load_error(frame)
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.text, back.__notes__) == ("NoSuchName", "NoSuchName('x')", ["note"])


def test_one_that_exits_when_it_is_read_here_is_a_remote_error(monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.dump_error(raised(TwoArguments(1, "x")))

    def exits(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(failures, "put_together", exits)
    assert isinstance(codec.load_error(data), RemoteError)


def test_the_whole_story_prints() -> None:
    shown = "".join(traceback.format_exception(there_and_back(chained())))
    assert shown.index("LookupError: first") < shown.index("RemoteTraceback") < shown.rindex("ValueError: third")
