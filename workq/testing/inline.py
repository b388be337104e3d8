"""Work without workers, for tests of code that makes its own queues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from workq import manager


@contextmanager
def inline() -> Iterator[None]:
    """Have every ``WorkMgr`` and ``Executor`` that is made meanwhile run its units in whoever waits, as with ``num_workers=0``.

    A debugger stops in them, mocks and fixtures of the test are seen by them, and no process is started.

    >>> import os
    >>> from workq import WorkMgr
    >>> from workq.testing import inline
    >>> with inline(), WorkMgr(4) as wq:
    ...     wq.queue(os.getpid).result() == os.getpid()
    True
    """
    manager.made_inline.append(None)
    try:
        yield
    finally:
        manager.made_inline.pop()
