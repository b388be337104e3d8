"""Both kinds of block of a queue, in which something is done, and which are left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workq import WorkMgr


def in_a_block(wq: WorkMgr, inside: Callable[[], object] = bool) -> None:
    with wq:
        inside()


def in_an_async_block(wq: WorkMgr, inside: Callable[[], object] = bool) -> None:
    async def main() -> None:
        async with wq:
            inside()

    asyncio.run(main())
