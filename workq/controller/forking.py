"""A fork waits until no other thread is in the middle of an import of ours.

The controller's thread loads what is seldom needed while the application's threads go on. A child that is forked just then would have
the module half made for ever: its locks are held by a thread that does not exist in the child, and whoever imports it there waits for
ever, or finds it without its contents. So whoever forks waits for such imports first, a few milliseconds at most. Modules of the
application are its own affair, also those that a thread loads as it unpickles a result: they may wait for whoever forks.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import FrameType

MOST_WAITS = 100
MACHINERY = ("importlib", "importlib._bootstrap", "_frozen_importlib")


def wait_for_imports() -> None:
    """Wait until the imports that other threads are in, and that ours are, have ended: to import the same module waits for it."""
    for _ in range(MOST_WAITS):  # one import may follow another
        names = _imports_of_others()
        for name in names:
            try:
                importlib.import_module(name)
            except Exception:
                pass  # the other thread meets the same, and tells of it
        if not names:
            return


def _imports_of_others() -> set[str]:
    me = threading.get_ident()
    names = {_imported_by_us(frame) for thread, frame in sys._current_frames().items() if thread != me}
    return {name for name in names if name is not None}


def _imported_by_us(frame: FrameType | None) -> str | None:
    """Return the outermost module that a thread is importing for us: one of workq's, or one that code of workq asked for."""
    found, imported, by_name = None, None, False
    while frame is not None:  # outwards: through a module that is half made, the machinery that makes it, and whoever has asked for it
        where = str(frame.f_globals.get("__name__", ""))
        if where in MACHINERY:
            by_name = where == "importlib"
            if frame.f_code.co_name == "_find_and_load":
                imported = str(frame.f_locals.get("name", ""))
        elif imported is not None:
            if _is_ours(imported) or (_is_ours(where) and (by_name or _is_import(frame))):
                found = imported
            imported = None
        frame = frame.f_back
    return found


def _is_import(frame: FrameType) -> bool:
    """Return whether a frame is in the middle of a statement that imports, and not of unpickling."""
    from opcode import opmap  # who forks has the time, and who starts has not

    return frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_NAME"]


def _is_ours(name: str) -> bool:
    return name == "workq" or name.startswith("workq.")


__all__ = ["wait_for_imports"]
