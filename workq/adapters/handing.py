"""An initializer and its arguments on their way into each new worker, multiprocessing's locks and queues among them.

``concurrent.futures`` gives ``initargs`` to ``multiprocessing.Process``, and so they may hold what can be shared "through inheritance
only". Here each start of a worker pickles them anew, as multiprocessing does when it spawns a process: semaphores by their name,
connections by way of multiprocessing's resource sharer. Semaphores of a fork context have no name; they are found in the memory that a
forked worker has inherited (`_inherited`). Loaded by workers: nothing heavy at the top.
"""

from __future__ import annotations

import binascii
import io
import sys

from workq.transport import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOGGER = "concurrent.futures"  # who speaks of a failing initializer there

_inherited: dict[tuple[int, int], Any] = {}  # what forked workers find again; filled and emptied by the process that forks


class Handed:
    """A function and its arguments; pickled, it is both of them as a new worker can load them.

    Args:
        function: What each worker calls.
        arguments: Its arguments.
        forked: Workers are forks of this process.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], forked: bool) -> None:
        self._call: tuple[Callable[..., Any] | None, tuple[Any, ...]] = function, arguments
        self._owner = id(self) if forked else 0
        self._whole = False  # what cannot be pickled is inherited as it is
        if forked:  # now, before anything is forked
            try:
                dump_for_start(self._call, self._owner, only_semaphores=True)
            except Exception:
                self._whole = True
                _inherited[self._owner, 0] = self._call

    def __reduce__(self) -> tuple[Any, ...]:
        if self._whole:
            return _find, (self._owner, 0)
        payload = dump_for_start(self._call, self._owner)
        by_value = b"__main__" in payload  # said by the pickle itself; hidden, or else it would be made a second time by value
        return _loaded, (binascii.b2a_base64(payload) if by_value else payload, by_value)

    def forget(self) -> None:
        """No worker will be started any more."""
        self._call = None, ()
        for key in [key for key in tuple(_inherited) if key[0] == self._owner]:
            del _inherited[key]


def dump_for_start(call: Any, owner: int, *, only_semaphores: bool = False) -> bytes:
    """Pickle what goes to a worker that is about to start, as multiprocessing does for a process that it spawns.

    Args:
        call: What it is.
        owner: Under whose number semaphores are left for workers that inherit them; 0: they inherit nothing.
        only_semaphores: Leave those, and make nothing that could be loaded.
    """
    from multiprocessing import context, resource_sharer
    from multiprocessing.reduction import ForkingPickler

    class Start:
        """What reducers ask of the process that is being started."""

        @staticmethod
        def duplicate_for_child(descriptor: int) -> int:
            return descriptor

        DupFd = staticmethod(resource_sharer.DupFd)

    class Pickler(codec.value_pickler()):  # type: ignore[misc]
        """By name or by value, and multiprocessing's things in multiprocessing's way."""

        def reducer_override(self, thing: Any) -> Any:
            if owner and is_semaphore(thing):
                _inherited[owner, id(thing)] = thing
                return _find, (owner, id(thing))
            reducer = ForkingPickler._extra_reducers.get(type(thing))  # type: ignore[attr-defined]
            if reducer is None:
                return super().reducer_override(thing)
            return (int, ()) if only_semaphores else reducer(thing)

    before = context.get_spawning_popen()
    context.set_spawning_popen(Start)  # type: ignore[arg-type]  # what reducers need of it
    try:
        with io.BytesIO() as file:
            Pickler(file, protocol=codec.PROTOCOL).dump(call)
            return file.getvalue()
    finally:
        context.set_spawning_popen(before)


def is_semaphore(thing: Any) -> bool:
    """Return whether it is one of multiprocessing's locks and semaphores."""
    synchronize = sys.modules.get("multiprocessing.synchronize")
    return synchronize is not None and isinstance(thing, synchronize.SemLock)


def _find(owner: int, number: int) -> Any:
    return _inherited[owner, number]


def _loaded(payload: bytes, by_value: bool) -> Any:
    return codec.load(binascii.a2b_base64(payload) if by_value else payload)


def initialize(call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
    """Run the initializer in a new worker; where it raises, say so as concurrent.futures does."""
    function, arguments = call
    try:
        function(*arguments)
    except BaseException:
        import logging

        logging.getLogger(LOGGER).critical("Exception in initializer:", exc_info=True)
        raise
