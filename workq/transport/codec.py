"""Values to bytes and back: functions, arguments, results and errors; used by the parent and by each worker.

Plain pickle wherever it can do it, cloudpickle (imported here and nowhere else, on demand) wherever it cannot. Each worker
loads this file when it starts, so that nothing heavy may be imported at the top. Any thread may call; the only state that
changes is the worker's ``__main__`` (owned by its main thread) and caches that may be filled twice without harm.

Two ways to send what belongs to the application's ``__main__``:

* *by reference*, where the worker can run that script again under another name (it has a ``__main__`` guard). The worker does
  so at the first name that it cannot find, see :func:`load`;
* *by value*, everywhere else (REPL, notebook, ``-c``, a script without a guard), see :func:`.mainmodule.main_is_importable`.

Large values, whose buffers travel out of band, are the concern of ``segments.py``.
"""

from __future__ import annotations

import _pickle
import io
import sys
from io import BytesIO, IOBase, StringIO

from workq.interruption import ExternalInterrupt
from workq.transport import mainmodule
from workq.transport.mainmodule import main_is_importable, preparation_data, preparing, set_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FunctionType
    from typing import Any

__all__ = [
    "dump_arguments",
    "dump_error",
    "dump_function",
    "dump_result",
    "load",
    "load_error",
    "main_is_importable",
    "preparation_data",
    "preparing",
    "set_main",
]

PROTOCOL = 5
NO_ARGUMENTS = _pickle.dumps((), PROTOCOL)  # known by sight at both ends: to pickle nothing takes 450 ns, to unpickle it 250
GLOBAL_END = b"\x93\x94."  # STACK_GLOBAL, MEMOIZE, STOP: the whole pickle is one name to be looked up
WHY_CHARACTERS = 500  # of a foreign error's text within one of our messages


# -- functions -------------------------------------------------------------------------------------------------------


def dump_function(function: Any) -> tuple[bytes, bool]:
    """Return the function's pickle, and whether that of this very object may be kept for its next use.

    Raises:
        PicklingError: It cannot be sent; whatever its pickling hooks did. Only KeyboardInterrupt passes.
    """
    try:
        data = dump_name(function)
        if data is not None:
            return data, True
        return dump_value(function), is_constant(function)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        from workq.errors import PicklingError

        raise PicklingError(
            f"cannot send function {name_of(function)}: {whose_fault(function)}{reason(error)}; {advice(function)}"
        ) from error


def dump_name(function: Any) -> bytes | None:
    """Return the pickle that only names the function, or None where the worker would not find it under that name."""
    try:
        data = _pickle.dumps(function, PROTOCOL)  # looks the name up itself, and wants to find this very object
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None  # cloudpickle may still do it; if not, its error is the better one
    if not data.endswith(GLOBAL_END):
        return None
    return data if b"__main__" not in data or is_in_script(function) else None


def dump_value(value: Any) -> bytes:
    """Pickle anything, with plain pickle where it can be read again in the worker, else by value."""
    try:
        data = _pickle.dumps(value, PROTOCOL)
    except (KeyboardInterrupt, ExternalInterrupt):
        raise
    except BaseException:
        return dump_by_value(value)
    return data if b"__main__" not in data or mainmodule.main_is_importable() else dump_by_value(value)


def is_in_script(thing: Any) -> bool:
    """Whether a function or class of ``__main__`` will be there again when a worker has run the script a second time."""
    code = getattr(thing, "__code__", None)
    if code is not None and code.co_filename.startswith("<"):
        return False  # typed at a prompt that was opened in the middle of a script
    return mainmodule.main_is_importable()


def is_constant(function: Any) -> bool:
    """Whether the by-value pickle of this function must be the same next time: nothing that it holds or names can change.

    Arguments are captured at the moment of queueing, and so is what a function carries with it. A plain constant among its
    globals counts as change: ``N = 5`` is followed by ``N = 6`` in many a notebook.
    """
    if not is_plain_function(function) or function.__closure__ or function.__dict__:
        return False
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return all(map(is_plain, defaults)) and all(is_fixed(value) for _, value in globals_of(function))


def is_plain_function(function: Any) -> bool:
    """Whether it was made by ``def`` or ``lambda``."""
    return type(function) is type(is_plain_function)


def is_plain(value: Any) -> bool:
    """Whether a value can never change."""
    if type(value) is tuple:
        return all(map(is_plain, value))
    return value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str, bytes)


def is_fixed(value: Any) -> bool:
    """Whether a global is a module, or a function or class that is sent as a name."""
    if type(value) is type(sys):
        return True
    return callable(value) and getattr(value, "__module__", "__main__") != "__main__" and dump_name(value) is not None


def globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield name and value of the globals that a function uses; an object() for one that is not defined (yet)."""
    import builtins

    for name in sorted(global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]
        elif not hasattr(builtins, name):
            yield name, object()  # may be defined before the next call: not fixed


def global_names(code: CodeType) -> set[str]:
    """Return the global names in a function's code and in what is defined inside it."""
    import dis

    names = {str(step.argval) for step in dis.get_instructions(code) if "GLOBAL" in step.opname or step.opname == "LOAD_NAME"}
    for constant in code.co_consts:
        if type(constant) is type(code):
            names |= global_names(constant)
    return names


# -- by value: the one place of cloudpickle --------------------------------------------------------------------------


def dump_by_value(value: Any) -> bytes:
    """Pickle with cloudpickle; functions and classes of a script that workers can import stay names."""
    with io.BytesIO() as file:
        value_pickler()(file, protocol=PROTOCOL).dump(value)
        return file.getvalue()


def value_pickler() -> Any:
    """Return our pickler's class, made at the first use, as cloudpickle costs 30 ms."""
    global _value_pickler
    if _value_pickler is None:
        _value_pickler = make_value_pickler()
    return _value_pickler


_value_pickler: Any = None


def make_value_pickler() -> Any:
    import functools

    import cloudpickle

    by_name_or_value = (type(make_value_pickler), type)
    cached = type(functools.lru_cache(make_value_pickler))

    class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
        """cloudpickle, but names stay names in an importable script, and cached functions of a notebook can be sent."""

        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, by_name_or_value) and getattr(thing, "__module__", None) == "__main__":
                if is_in_script(thing) and is_found(thing):
                    return NotImplemented  # plain pickle: the name
            elif isinstance(thing, IOBase) and not isinstance(thing, BytesIO | StringIO):
                raise TypeError(f"cannot pickle an open file ({type(thing).__name__}): send its path")
            elif type(thing) is cached and dump_name(thing) is None:
                return make_cached, (thing.__wrapped__, thing.cache_parameters())
            return super().reducer_override(thing)

    return ValuePickler


def is_found(thing: Any) -> bool:
    """Whether a function or class of ``__main__`` is what its name there says."""
    found: Any = sys.modules.get("__main__")
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


def make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    """Rebuild a ``functools.lru_cache`` function, with an empty cache."""
    import functools

    return functools.lru_cache(**parameters)(function)


# -- arguments and results -------------------------------------------------------------------------------------------


def dump_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], function: Any = None) -> bytes:
    """Pickle the arguments of one unit the slow way: ``args``, or ``(args, kwargs)`` if there are any of the latter.

    Args:
        args: The positional arguments.
        kwargs: Those by keyword.
        function: Whom they are for, if known; the error then says the name of the parameter.

    Raises:
        PicklingError: One of them cannot be pickled; the message names it. Only KeyboardInterrupt passes.
    """
    try:
        return dump_value((args, kwargs) if kwargs else args)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        from workq.errors import PicklingError

        which, culprit, why = find_culprit(args, kwargs, function) or ("the arguments", (args, kwargs), error)
        text = f"{which} of type {type_name(culprit)} cannot be pickled: {reason(why)}"
        try:
            raise PicklingError(f"{text}; pass what it can be made from, and make it in the unit") from why
        finally:
            del why  # it knows this frame by its traceback, and so whoever has called: together they would keep the caller's WorkMgr


def find_culprit(args: tuple[Any, ...], kwargs: dict[str, Any], function: Any) -> tuple[str, Any, BaseException] | None:
    """Pickle the arguments one by one; return the description of the first that fails, itself, and its error."""
    names = parameter_names(function)
    named = [(f"argument {n}" + (f" ({names[n - 1]})" if n <= len(names) else ""), value) for n, value in enumerate(args, 1)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for which, value in named:
        try:
            dump_value(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return which, value, error
    return None


def parameter_names(function: Any) -> list[str]:
    """Return the names of the positional parameters, or nothing where they cannot be known."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except Exception:
        return []
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def dump_result(value: Any, unit_label: str = "") -> bytes:
    """Pickle a result that plain pickle refused.

    Raises:
        ResultError: It cannot be pickled; whatever its hooks did. Only an interrupt of the unit passes.
    """
    try:
        return dump_value(value)
    except ExternalInterrupt:
        raise
    except BaseException as error:
        from workq.errors import ResultError

        whose = f" of unit {unit_label}" if unit_label else ""
        text = f"the result{whose}, of type {type_name(value)}, cannot be pickled: {reason(error)}"
        raise ResultError(f"{text}; return what it can be made from") from error


def unsent_result(size_bytes: int) -> Exception:
    """Return the error of a unit whose result has no way to the parent any more."""
    from workq.errors import ResultError

    return ResultError(f"a result of {size_bytes} bytes cannot be sent, as the unit has closed the descriptors of its worker")


def load(data: Any) -> Any:
    """Unpickle in the worker; where something is missing that can be had (see `prepare_for`), get it and try again."""
    try:
        return _pickle.loads(data)
    except Exception:
        prepare_for(data)
    return _pickle.loads(data)


def prepare_for(data: Any) -> None:
    """Run the application's script, if a name of it may be what was missing; take the key of its managers, if that was missing.

    Else raise the error on that is being handled.
    """
    error = sys.exception()
    if mainmodule.prove_ourselves(error):
        return
    if not mainmodule.can_prepare() or not names_main(data):  # whatever was raised: some look names up by themselves
        raise
    mainmodule.prepare()


def names_main(data: Any) -> bool:
    """Whether a pickle names anything of the script, under either of its names."""
    whole = bytes(data)
    return b"__main__" in whole or b"__mp_main__" in whole


# -- errors: their rules are in failures.py --------------------------------------------------------------------------


def dump_error(error: BaseException, unit_label: str = "", note: str = "") -> bytes:
    """Pickle what a unit has raised; see `failures.dump_error`."""
    from workq.transport import failures

    return failures.dump_error(error, unit_label, note)


def load_error(data: Any, exact: bool = False) -> BaseException:
    """Rebuild what a unit has raised; see `failures.load_error`."""
    from workq.transport import failures

    return failures.load_error(data, exact)


# -- the words of our messages ---------------------------------------------------------------------------------------


def name_of(function: Any) -> str:
    """Return a name for any callable, whatever it is."""
    name = guarded(lambda: function.__qualname__)
    return name if type(name) is str else f"of type {type_name(function)}"


def type_name(value: Any) -> str:
    """Return the full name of a value's type (``builtins`` left out)."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def reason(error: BaseException) -> str:
    """Return an error's type and text in one bounded line."""
    text = guarded(lambda: str(error)) or ""
    return f"{type(error).__name__}: {text[:WHY_CHARACTERS]}" if text else type(error).__name__


def whose_fault(function: Any) -> str:
    """Return which of the things that a function takes along cannot be pickled, or nothing where that is not known."""
    for what, name, value in carried(function) if is_plain_function(function) else ():
        try:
            dump_value(value)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return f"its {what} {name!r} of type {type_name(value)}: "
    return ""


def carried(function: FunctionType) -> Iterator[tuple[str, str, Any]]:
    """Yield kind, name and value of all that goes with a function by value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield "enclosed variable", name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name, value in globals_of(function):
        yield "global", name, value
    code, defaults = function.__code__, function.__defaults__ or ()
    for name, value in zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True):
        yield "default of", name, value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield "default of", name, value


def advice(function: Any) -> str:
    """Return what to do about a function that cannot be sent."""
    if getattr(function, "__closure__", None):
        return "pass what it takes from the function around it as arguments, or make it inside"
    if getattr(function, "__self__", None) is not None:
        return "queue a function of a module, and pass the object's data as arguments"
    return "queue a function of a module, and pass the rest as arguments"


def guarded(ask: Callable[[], str]) -> str | None:
    """Return what a foreign hook says, or None where it raises, whatever it raises."""
    try:
        return ask()
    except (KeyboardInterrupt, ExternalInterrupt):
        raise
    except BaseException:
        return None
