"""What completion offers of an object: its public names, and not those by which our rooms know it."""

from __future__ import annotations


def public_names(thing: object, besides: frozenset[str] = frozenset()) -> list[str]:
    """Return the names that `dir` is to tell of a thing: those without an underscore in front, `besides` left out."""
    return sorted(name for name in object.__dir__(thing) if not name.startswith("_") and name not in besides)


__all__ = ["public_names"]
