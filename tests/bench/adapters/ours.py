"""workq, by its ordinary public face and with its defaults."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from tests.bench.adapters.library import Library
from tests.bench.calls import Call


class Workq(Library):
    """One WorkMgr. Handles are its units."""

    def prepare(self) -> None:
        """Have the class loaded, not only the package, whose names are loaded on first use."""
        import workq.manager

        self.kind: Any = workq.manager.WorkMgr

    def start(self, workers: int) -> None:
        from workq.category import Category
        from workq.given.cpus import usable_cpus

        category = "Default"
        if workers > 2 * usable_cpus():  # the default category would clamp the number
            from workq import Controller

            category = "Bench"
            Controller.default().add_category(Category(category, default_workers=workers, max_workers=workers, max_active_workers=workers))
        self.manager = self.kind(workers, category=category)
        self.submit = self.manager.queue  # type: ignore[method-assign]  # no call in between: it would be measured too

    def awaitable(self, handle: Any) -> Awaitable[Any]:
        return handle  # type: ignore[no-any-return]

    def cancel(self, handle: Any) -> None:
        handle.cancel()

    def share(self, value: Any) -> Any:
        import workq

        return workq.shared(value)

    def map(self, fn: Call, items: Iterable[Any]) -> list[Any]:
        return list(self.manager.map(fn, items))

    def close(self) -> None:
        self.manager.close()
