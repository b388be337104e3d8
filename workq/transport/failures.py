"""Exceptions of units to bytes and back: proven in the worker before they are sent, never raising in the parent.

An exception is sent as itself only if it survived a round trip in the worker with its type, arguments and text. Else a
`RemoteError` stands for it, with its type's name, its repr and its traceback. Each hook of it (``__reduce__``, ``__init__``,
``__str__``, ``__repr__``) is foreign code, and may raise anything; only an interrupt of the unit passes.

Pickle loses the cause, the context and the traceback. The traceback travels as text and covers them all; cause and context
travel as objects too where they can be pickled, and hang on the `RemoteTraceback`.
"""

from __future__ import annotations

import _pickle
import io
import marshal
import os

from workq.interruption import ExternalInterrupt
from workq.transport import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

ERROR_BYTES = 1 << 20  # the most that one pickled exception may take
TRACEBACK_CHARACTERS = 64 << 10
REPR_CHARACTERS = 10_000
NOTES = 64
CHAIN = 8  # how many causes or contexts travel as objects
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
COMPARED = (bool, int, float, complex, str, bytes, type(None))

BY_CAUSE, BY_CONTEXT = 1, 2


# -- in the worker ---------------------------------------------------------------------------------------------------


def dump_error(error: BaseException, unit_label: str = "", note: str = "") -> bytes:
    """Return what `load_error` makes the exception of. Raises nothing but an interrupt that strikes while a hook runs.

    Args:
        error: What the unit raised.
        unit_label: Which unit, and where; stands above the traceback.
        note: A note of ours for the exception.
    """
    if isinstance(error, MemoryError):
        let_go(error)
    try:
        text = traceback_text(error)
        if unit_label:
            text = f"(unit {unit_label})\n{text}"
        pickled = proven_pickle(error)
        notes = [*notes_of(error), *([note] if note else ())]
        kinds = list(full_names(type(error)))
        return marshal.dumps((codec.type_name(error), bounded_repr(error), text, pickled, notes, chain_of(error), kinds))
    except ExternalInterrupt:
        raise
    except BaseException as problem:  # a class whose very name raises, no memory left
        return marshal.dumps(
            (type(error).__name__, f"an exception that cannot be described: {codec.reason(problem)}", "", None, [], [], [])
        )


def let_go(error: BaseException) -> None:
    """Give back what the frames of a traceback hold: where memory has run out, there is none to tell of it."""
    traceback = error.__traceback__
    while traceback is not None:
        try:
            traceback.tb_frame.clear()
        except RuntimeError:  # it still runs: ours
            pass
        traceback = traceback.tb_next


def setup_failed(queue: str, where: str, error: BaseException) -> Exception:
    """Return the error of a unit whose queue's set-up has failed in its worker."""
    from workq.errors import SetupFailed

    failure = SetupFailed(f"the setup of queue {queue} failed in {where}: {codec.reason(error)}")
    failure.__cause__ = error
    return failure


def proven_pickle(error: BaseException) -> bytes | None:
    """Return a pickle of the exception that is known to come back as it was, or None if there is none."""
    for attempt in (plain_pickle, codec.dump_by_value, parts_pickle):
        try:
            data = attempt(error)
            if len(data) > ERROR_BYTES:
                return None
            if survived(error, _pickle.loads(data)):
                return data
        except ExternalInterrupt:
            raise
        except BaseException:  # each hook may raise what it likes
            continue
    return None


def plain_pickle(error: BaseException) -> bytes:
    """Pickle it as it wants to be pickled."""
    return _pickle.dumps(error, codec.PROTOCOL)


def parts_pickle(error: BaseException) -> bytes:
    """Pickle type, arguments and attributes, to be put together without the constructor, which wants something else.

    So are the exceptions within it: members of a group may have odd constructors too.
    """
    with io.BytesIO() as file:
        parts_pickler()(file, protocol=codec.PROTOCOL).dump(error)
        return file.getvalue()


def parts_pickler() -> Any:
    """Return a pickler that takes each exception apart."""

    class PartsPickler(codec.value_pickler()):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, BaseException):
                return put_together, (type(thing), thing.args, dict(thing.__dict__))
            return super().reducer_override(thing)

    return PartsPickler


def put_together(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """Make an exception of its parts. Its constructor is not called."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def survived(error: BaseException, copy: Any) -> bool:
    """Whether a copy has the same type, arguments, attributes' names and text."""
    return (
        type(copy) is type(error)
        and len(copy.args) == len(error.args)
        and all(map(alike, error.args, copy.args))
        and copy.__dict__.keys() - {"__notes__"} == error.__dict__.keys() - {"__notes__"}
        and same_text(error, copy)
    )


def alike(mine: Any, copy: Any) -> bool:
    """Whether two arguments are the same, as far as can be told without running their code."""
    return type(mine) is type(copy) and (type(mine) not in COMPARED or mine == copy or mine != mine)


def same_text(error: BaseException, copy: BaseException) -> bool:
    """Whether both say the same; texts that contain an object's address cannot be compared."""
    mine = codec.guarded(lambda: str(error))
    return mine is None or " at 0x" in mine or mine == codec.guarded(lambda: str(copy))


def chain_of(error: BaseException) -> list[tuple[int, bytes]]:
    """Return the pickles of its causes or contexts, nearest first, as far as they can be pickled."""
    links: list[tuple[int, bytes]] = []
    seen = {id(error)}
    while len(links) < CHAIN:
        how, linked = (BY_CAUSE, error.__cause__) if error.__cause__ is not None else (BY_CONTEXT, error.__context__)
        if linked is None or id(linked) in seen or (how == BY_CONTEXT and error.__suppress_context__):
            break
        pickled = proven_pickle(linked) if isinstance(linked, Exception) else None
        if pickled is None:
            break
        seen.add(id(linked))
        links.append((how, pickled))
        error = linked
    return links


def full_names(kind: type[BaseException]) -> tuple[str, ...]:
    """Return the full names of an exception type and of its bases."""
    return tuple(full_name(each) for each in kind.__mro__ if each not in (object, BaseException))


def full_name(kind: type) -> str:
    """Return the name by which a type is known in every process; the script is ``__main__`` in all of them."""
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"


def notes_of(error: BaseException) -> list[str]:
    """Return its notes, bounded."""
    notes = getattr(error, "__notes__", None)
    if type(notes) is not list:
        return []
    return [note[:REPR_CHARACTERS] for note in notes[:NOTES] if type(note) is str]


def bounded_repr(error: BaseException) -> str:
    """Return its repr, or what can be said where that raises."""
    text = codec.guarded(lambda: repr(error))
    return text[:REPR_CHARACTERS] if type(text) is str else f"<{codec.type_name(error)} whose repr() failed>"


def traceback_text(error: BaseException) -> str:
    """Return the traceback with all its causes and groups, without workq's own frames at the top, bounded."""
    import traceback

    frames = own_frames_skipped(error.__traceback__)
    text = codec.guarded(lambda: "".join(traceback.format_exception(type(error), error, frames)))
    if text is None:
        text = "Traceback (most recent call last):\n" + "".join(traceback.format_tb(frames)) + bounded_repr(error) + "\n"
    return bounded(text)


def own_frames_skipped(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame that is not workq's; the whole where there is no other."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(OURS):
        first = first.tb_next
    return first if first is not None else frames


def bounded(text: str) -> str:
    """Cut a traceback that is too long in its middle: the end says what happened, the beginning where it came from."""
    if len(text) <= TRACEBACK_CHARACTERS:
        return text
    head = TRACEBACK_CHARACTERS // 4
    tail = TRACEBACK_CHARACTERS - head - 100
    return f"{text[:head]}\n... {len(text) - head - tail} characters cut ...\n{text[-tail:]}"


# -- in the parent ---------------------------------------------------------------------------------------------------


def load_error(data: Any, exact: bool = False) -> BaseException:
    """Return the exception that `dump_error` was given, with the worker's traceback as its ``__cause__``. Never raises.

    What is not an ``Exception`` (SystemExit, KeyboardInterrupt) comes as a RemoteError: raised as itself by ``result()`` it
    would end the application. Unless it is to be ``exact``, as concurrent.futures is.
    """
    from workq.errors import RemoteError, RemoteTraceback

    try:
        name, text, trace, pickled, notes, links, _ = marshal.loads(data)
    except Exception as problem:
        return RemoteError("unknown", f"the unit's exception could not be read: {codec.reason(problem)}")
    error = loaded(pickled, exact) or RemoteError(name, text, trace)
    add_missing_notes(error, notes)
    cause = RemoteTraceback(trace)
    hang_chain(cause, links)
    error.__cause__ = cause
    return error


def kinds_of(data: Any) -> tuple[str, ...]:
    """Return the full names of the exception's type and of its bases, without making it."""
    try:
        return tuple(marshal.loads(data)[6])
    except Exception:
        return ()


def line_of(data: Any) -> str:
    """Return what the exception was, in a line, without making it."""
    try:
        _, text, trace, *_ = marshal.loads(data)
        return last_line(trace) or str(text)
    except Exception:
        return ""


def last_line(trace: str) -> str:
    """Return what a traceback says in its last line."""
    return trace.rstrip().rpartition("\n")[2].replace("__mp_main__.", "__main__.")


def loaded(pickled: bytes | None, exact: bool = False) -> BaseException | None:
    """Return the exception, or None where it was not sent, cannot be rebuilt in this process, or is none that may be raised here."""
    if pickled is None:
        return None
    try:
        error = _pickle.loads(pickled)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None
    return error if isinstance(error, BaseException if exact else Exception) else None


def add_missing_notes(error: BaseException, notes: list[str]) -> None:
    """Add the notes that an exception's own ``__reduce__`` has left out."""
    there = getattr(error, "__notes__", ())
    for note in notes:
        if note not in there:
            error.add_note(note)


def hang_chain(error: BaseException, links: list[tuple[int, bytes]]) -> None:
    """Make the causes and contexts reachable again, from the traceback on."""
    for how, pickled in links:
        linked = loaded(pickled)
        if linked is None:
            return
        if how == BY_CAUSE:
            error.__cause__ = linked
        else:
            error.__context__ = linked
        error = linked
