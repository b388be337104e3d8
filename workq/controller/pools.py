"""The categories of a controller as people see them: a table that is also a mapping, with the four things to do; and a queue's limits.

Any thread. The controller keeps the categories; this is a view of them, made when it is asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workq.category import Category
from workq.errors import ArgumentError, is_handle
from workq.given.environment import MAX_WORKERS
from workq.seeing.tables import table

if TYPE_CHECKING:
    from workq.controller.records import Queue

_COLUMNS = ("default_workers", "max_workers", "max_active_workers", "max_total_workers", "always_queue")


class CategoryTable(Mapping[str, Category]):
    """The categories of a controller, by name: prints as a table, is a mapping, and makes, changes and deletes them.

    Changes act at once: on workers that run, and on queues that are open. No running unit is touched by them.

    >>> from workq import Controller
    >>> with Controller() as controller:
    ...     small = controller.categories.create("small", max_workers=2, max_active_workers=2)
    ...     small = controller.categories.change("small", max_workers=1)
    ...     controller.categories["small"].max_workers
    ...     controller.categories.delete("small")
    1
    """

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    def create(self, category: Category | str, /, **limits: Any) -> Category:
        """Make a category, of a ``Category`` or of a name and its limits, and return it.

        Raises:
            CategoryError: There is one of that name.
            ArgumentError: A name or a limit is not allowed; the message names it.
        """
        if isinstance(category, str):
            category = Category(category).replace(**limits) if limits else Category(category)
        elif limits:
            raise ArgumentError(f"limits go into the Category, or beside a name: {', '.join(limits)}")
        self._controller.add_category(category, new=True)
        return category

    def change(self, name: str, /, **limits: Any) -> Category:
        """Change some limits of a category, and return it as it is now. What is not named stays.

        ``max_workers`` acts on open queues too; ``default_workers`` on those that are made from now on; ``preload``, ``initializer`` and
        what else prepares a worker on workers that start from now on.

        Raises:
            CategoryError: There is none of that name; the message names those that exist.
            ArgumentError: A limit is not allowed; the message names it.
        """
        changed: Category = self._controller.change_category(name, limits)
        return changed

    def delete(self, name: str) -> None:
        """Delete a category. Its idle workers end.

        Raises:
            CategoryError: There is none of that name, it is one of the three that always exist, or queues of it are open,
                also such as nothing was queued on: it can be deleted when each ``WorkMgr`` of it is closed or gone.
        """
        self._controller.delete_category(name)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the table as plain dicts: name, limits, ``workers`` (processes now) and ``queues`` (open now)."""
        workers, queues = self._controller.population()
        return [
            {
                "name": category.name,
                **{column: getattr(category, column) for column in _COLUMNS},
                "workers": workers.get(category.name, 0),
                "queues": queues.get(category.name, 0),
            }
            for category in self.values()
        ]

    def __getitem__(self, name: str) -> Category:
        found: Category = self._controller.category(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the category of this name, or ``default``."""
        return self._controller.pools.get(name, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._controller.pools

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._controller.pools))

    def __len__(self) -> int:
        return len(self._controller.pools)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle("the table of categories", "send dict() of it")

    def __repr__(self) -> str:
        rows = [[_shown(value) for value in row.values()] for row in self.as_dicts()]
        return table([["name", *_COLUMNS, "workers", "queues"]], rows)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a queue may have, and why: prints as a table.

    Attributes:
        num_workers: The most workers that serve it at once: what was asked for, clamped.
        asked_workers: What was asked for; None where no number was named.
        default_workers, max_workers, max_active_workers, max_total_workers, always_queue: Those of its category.
        max_pending: How many of its units may wait; None: any number.
        reason: Why ``num_workers`` is what it is.
    """

    num_workers: int
    asked_workers: int | None
    default_workers: int
    max_workers: int
    max_active_workers: int
    max_total_workers: int | None
    always_queue: bool
    max_pending: int | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict."""
        return asdict(self)

    def __repr__(self) -> str:
        rows = [[name, _shown(value)] for name, value in asdict(self).items() if name != "reason"]
        rows[0].append(self.reason)
        return table([], [[*row, *[""] * (3 - len(row))] for row in rows])


def limits_of_queue(queue: Queue, category: Category, inline: bool) -> QueueLimits:
    """Return what a queue may have."""
    limits = {column: getattr(category, column) for column in _COLUMNS}
    limits["max_pending"] = None if queue.gate is None else queue.gate.max_pending
    if inline:
        return QueueLimits(0, 0, reason="units run in whoever waits for them", **limits)
    return QueueLimits(queue.max_workers, queue.asked_workers, reason=reason_of(queue, category), **limits)


def tell_clamped(queue: Queue, category: Category) -> None:
    """Say in the log that a queue has fewer workers than it wants."""
    number = f"{queue.max_workers} worker{'s' * (queue.max_workers > 1)}"
    logging.getLogger("workq").info("queue %s has %s: %s", queue.name, number, reason_of(queue, category))


def reason_of(queue: Queue, category: Category) -> str:
    """Return why a queue has the number of workers that it has."""
    wanted, named = queue.wanted_workers, queue.asked_workers is not None
    if wanted <= category.max_workers:
        return "as asked for" if named else f"no number was named; default_workers of category {category.name} was {wanted}"
    text = f"{wanted} were asked for" if named else f"default_workers of category {category.name} was {wanted}"
    cap = f", as {MAX_WORKERS} says" if os.environ.get(MAX_WORKERS, "").strip() == str(category.max_workers) else ""
    return f"{text}; max_workers of category {category.name} is {category.max_workers}{cap}"


def _shown(value: object) -> str:
    return "no limit" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
