"""The application's ``__main__``: whether a worker can run that script again, what it needs for that, and the doing of it.

The parent asks `main_is_importable` and `preparation_data`; a worker is given the data by `set_main`, and runs the script when
the first name of it is missing (`prepare`). The running is multiprocessing's, so that what its users know stays true: the script
is run under the name ``__mp_main__``, and classes of it come back as the parent's own.

Nothing heavy at the top: each worker loads this file when it starts.
"""

from __future__ import annotations

import _pickle
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

ALIAS = "__mp_main__"

# -- in the parent ---------------------------------------------------------------------------------------------------

_judged: tuple[ModuleType | None, str | None, bool] = (None, None, False)  # of which module and file, and the judgement


def main_is_importable() -> bool:
    """Whether a worker can run the application's ``__main__`` again and find its functions: a script with a guard.

    False for a REPL, a notebook, ``-c``, a script without ``if __name__ == "__main__"``, and a package's ``__main__.py``
    (which is expected to act when it is imported): what they define goes by value. Cheap after the first call.
    """
    global _judged
    main = sys.modules.get("__main__")
    path = path_of(main)
    if main is None or path is None or hasattr(sys, "ps1") or sys.flags.inspect:
        return False
    if _judged[0] is not main or _judged[1] != path:
        _judged = main, path, can_run_again(main, path)
    if _judged[2]:
        sys.modules.setdefault(ALIAS, main)  # a class of __main__ comes back from a worker under this name
    return _judged[2]


def path_of(main: ModuleType | None) -> str | None:
    """Return the file of the main module. Python takes ``__file__`` away when the script has ended; workers may start after that."""
    path = getattr(main, "__file__", None)
    return _judged[1] if path is None and main is _judged[0] else path


def can_run_again(main: ModuleType, path: str) -> bool:
    """Whether multiprocessing's preparation would run this module, and that would not start the application again."""
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None and (name == "__main__" or name.endswith(".__main__")):
        return False
    if os.path.splitext(os.path.basename(path))[0] == "ipython":
        return False
    try:
        with open(path, "rb") as file:
            return has_guard(file.read())
    except OSError:
        return False


def has_guard(source: bytes) -> bool:
    """Whether a script compares ``__name__`` with ``"__main__"`` in an ``if`` at its top level: ``==``, or ``!=`` with an ``else``."""
    if b"__name__" not in source:
        return False  # spares the import of ast
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    choices = [step for step in tree.body if isinstance(step, ast.If)]
    return any(asks_for_main(step.test, ast.Eq) or (step.orelse and asks_for_main(step.test, ast.NotEq)) for step in choices)


def asks_for_main(test: Any, operator: type[Any]) -> bool:
    """Whether a condition has such a comparison in it, with this operator."""
    import ast

    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], operator):
            sides = [node.left, *node.comparators]
            names = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
            if names and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides):
                return True
    return False


def preparation_data(inherited: bool = False) -> bytes | None:
    """Return what a worker needs to run the script again, pickled; None where the script's names go by value.

    A worker that has ``inherited`` the script as it stands, by a fork, does so only for what was not there when it was forked.

    Made here and not by multiprocessing's own function, as that one settles the application's start method for good.
    """
    if not main_is_importable():
        return None
    main = sys.modules["__main__"]
    data: dict[str, Any] = {
        "inherited": inherited,
        "sys_path": [os.getcwd() if entry == "" else entry for entry in sys.path],
        "sys_argv": list(sys.argv),
    }
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        data["init_main_from_name"] = spec.name
    else:
        data["init_main_from_path"] = os.path.abspath(str(path_of(main)))
    data.update(multiprocessing_choices())
    return _pickle.dumps(data, 5)


def multiprocessing_choices() -> dict[str, Any]:
    """Return what the application has set in multiprocessing, if it uses it: managers' proxies need the key."""
    process = sys.modules.get("multiprocessing.process")
    context = sys.modules.get("multiprocessing.context")
    if process is None or context is None:
        return {}
    choices = {"authkey": bytes(process.current_process().authkey), "orig_dir": process.ORIGINAL_DIR}
    method = context._default_context.get_start_method(allow_none=True)
    return {**choices, "start_method": method} if method else choices


def managers_key() -> bytes | None:
    """Return what a worker needs to talk to the application's multiprocessing managers, if it uses multiprocessing at all."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else bytes(process.current_process().authkey)


# -- in a worker -----------------------------------------------------------------------------------------------------

_preparation: dict[str, Any] | None = None
_done = False
_failure = ""
_preparing = False
_launchers_main: ModuleType | None = None
after_run: Callable[[], object] | None = None  # what a worker does when the script has been run
_managers_key: bytes | None = None  # until it was used


def set_main(preparation: dict[str, Any] | None) -> None:
    """Take what `preparation_data` has said. The launcher's own ``__main__`` goes out of the way.

    Else a function ``main`` of the script would be looked up in the launcher, and the wrong one found there. A fork of the application
    has inherited the application's own, with all that was set there.
    """
    global _preparation, _done, _failure, _launchers_main
    _preparation, _done, _failure = preparation, False, ""
    if preparation is not None and not preparation.get("inherited"):
        _launchers_main = sys.modules.get("__main__")
        sys.modules["__main__"] = type(sys)("__main__")


def set_managers_key(key: bytes | None) -> None:
    """Take what `managers_key` has said."""
    global _managers_key
    _managers_key = key


def prove_ourselves(error: BaseException | None) -> bool:
    """After a proxy of a manager was turned away: use the application's key from now on; False where that is not what was wrong."""
    global _managers_key
    if type(error).__name__ != "AuthenticationError" or _managers_key is None:
        return False
    import multiprocessing.process

    multiprocessing.process.current_process().authkey = _managers_key
    _managers_key = None
    return True


def preparing() -> bool:
    """Whether the script is being run again just now: it must not queue work then."""
    return _preparing


def can_prepare() -> bool:
    """Whether there is a script, and it has not been run yet (or has failed, and the unit shall be told so)."""
    return _preparation is not None and not _done


def prepare() -> None:
    """Run the script, once. Raises PicklingError, at each call, where it cannot be run."""
    global _done, _failure, _preparing
    assert _preparation is not None
    if not _failure:
        _preparing = True
        try:
            run_main(_preparation)
            if after_run is not None:
                after_run()
            _done = True
            return
        except Exception as error:
            _failure = describe(error)
        except SystemExit as error:
            _failure = f"it ended itself ({describe(error)})"
        finally:
            _preparing = False
    from workq.errors import PicklingError

    script = _preparation.get("init_main_from_path") or _preparation.get("init_main_from_name")
    raise PicklingError(
        f"the main module {script} cannot be imported by a worker: {_failure}; "
        'put what starts the work under `if __name__ == "__main__":`, or define the functions in a module of their own'
    )


def run_main(preparation: dict[str, Any]) -> None:
    """Run the script as multiprocessing does in a spawned process, whose own check of a missing guard then works too."""
    import multiprocessing.process
    import multiprocessing.spawn

    this: Any = multiprocessing.process.current_process()
    this._inheriting = True
    try:
        multiprocessing.spawn.prepare(preparation)
    finally:
        del this._inheriting


def describe(error: BaseException) -> str:
    """Return an error's type and text, also where it has none."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
