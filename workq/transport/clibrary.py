"""Functions of the C library for which Python has no name, called past `ctypes`, whose import alone is a millisecond of each start."""

from __future__ import annotations

from _ctypes import FUNCFLAG_CDECL, CFuncPtr, _SimpleCData, dlopen, dlsym

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = _Int


def function(name: str) -> Callable[..., int]:
    """Return a function of the C library that takes and returns whole numbers of 32 bits. OSError: it has none of this name.

    >>> import os
    >>> function("getpid")() == os.getpid()
    True
    """
    return _Function(dlsym(dlopen(None, 0), name))  # type: ignore[arg-type]  # None is the program itself
