"""Waits in a circle: each waits for the next, and the last for the first, so that none can ever end.

Each wait here is for *all* that it names, and has no time-out: then a circle is certain. Whoever calls knows who waits for whom, and
asks at the moment when a wait begins: what closes a circle is always the wait that begins last.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def find_circle(start: Node, waits_for: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """Return the circle that `start` stands in, `start` first and each waiting for the next; nothing where there is none.

    >>> find_circle("a", {"a": "b", "b": "c", "c": "ab"}.__getitem__)
    ['a', 'b', 'c']
    >>> find_circle("a", {"a": "b", "b": "c", "c": "b"}.__getitem__)
    []
    """
    path, seen = [start], {start}
    ways = [iter(waits_for(start))]
    while ways:
        node = next(ways[-1], None)
        if node is None:
            ways.pop()
            path.pop()
        elif node == start:
            return path
        elif node not in seen:
            seen.add(node)
            path.append(node)
            ways.append(iter(waits_for(node)))
    return []


def sentence(names: Iterable[str]) -> str:
    """Return a circle in words.

    >>> sentence(["unit 1", "lock 'a'", "unit 2", "lock 'b'"])
    "unit 1 waits for lock 'a', held by unit 2, which waits for lock 'b', held by unit 1: this can never end"
    >>> sentence(["unit 1", "unit 2", "lock 'a'"])
    "unit 1 waits for unit 2, which waits for lock 'a', held by unit 1: this can never end"
    >>> sentence(["unit 1"])
    'unit 1 waits for unit 1: this can never end'
    """
    circle = list(names)
    text = circle[0]
    for before, name in zip(circle, [*circle[1:], circle[0]], strict=True):
        if before.startswith("lock "):
            text += f", held by {name}"
        else:
            text += f"{' waits' if text == circle[0] else ', which waits'} for {name}"
    return text + ": this can never end"
