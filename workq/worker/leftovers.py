"""What a unit leaves behind in its worker: noticed when it ends, told with its result, and put back where that is possible."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workq.worker.interrupt import Interrupts


class Watcher:
    """Compares the process with how it was before its first unit. Owned by the worker's main thread."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._folder = _folder()

    def mend(self) -> list[str] | None:
        """Put back what was changed, and return a sentence for each, or None."""
        found = []
        if _folder() != self._folder:
            found.append(f"it changed the working directory to {_folder()!r}; put back")
            self._go_back()
        if not self._interrupts.intact():
            found.append("it changed the handler or the mask of workq's signals; put back")
            self._interrupts.install()
        return found or None

    def _go_back(self) -> None:
        try:
            os.chdir(self._folder)
        except OSError:
            self._folder = _folder()  # the folder is gone: the new one is home from now on


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
