"""What a worker runs for a unit whose function travels with it (a bound method, a partial, a closure)."""

from __future__ import annotations

from workq.transport import codec


def call(pickled: bytes, data: bytes, keywords: bool) -> object:
    """Load a function and its arguments, and call it."""
    function = codec.load(pickled)
    if keywords:
        args, kwargs = codec.load(data)
        return function(*args, **kwargs)
    return function(*codec.load(data))
