"""The start of one worker: its lane, its row, and the first frame, which says what it has to know."""

from __future__ import annotations

import logging
import os
from marshal import dumps as marshal_dumps
from typing import TYPE_CHECKING, Any

from workq.category import Category, packed
from workq.controller import recycling, surroundings
from workq.controller.records import Worker
from workq.core.events import WorkerExited, WorkerId
from workq.given.arguments import plain
from workq.transport import codec, mainmodule
from workq.transport.board import POOLS
from workq.transport.channel import DOWN_CONFIG, down_frame

if TYPE_CHECKING:
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")


def start_worker(loop: Loop, number: WorkerId, category_name: str, now: float) -> None:
    """Begin to start a worker; whether that worked comes back as an event of the engine."""
    category = loop.controller.pools.get(category_name)
    try:
        if category is None:
            raise OSError(f"category {category_name!r} was deleted")
        first = first_frame(loop, category)
        told = surroundings.of_worker(loop, category, surroundings.free_rank(loop, category_name))
        lane = loop.engine.start(number)
    except Exception as error:
        loop.halts.note_start_failure(category_name, f"a worker cannot be started: {error}")
        loop.tell(WorkerExited(number))
        return
    worker = Worker(number, category_name, lane, now)
    worker.rank = told["rank"]
    recycling.wear_out(loop, worker, category)
    loop.by_number[number] = worker
    loop.dispatcher.workers = [*loop.dispatcher.workers, worker]
    worker.words[POOLS] = loop.controller.pools_version  # now: who changes them from here on finds it among the workers
    identity = {"name": lane.name, "process_info_id": lane.process_info_id, "parent": (os.getpid(), lane.socket.fileno())}
    worker.outgoing.send(down_frame(DOWN_CONFIG, marshal_dumps({**first, **identity, "surroundings": told})))


def first_frame(loop: Loop, category: Category) -> dict[str, Any]:
    """Return what every worker of a category is told at its start."""
    initializer = b""
    if category.initializer is not None:
        initializer = codec.dump_value((category.initializer, category.initializer_args))
    root = logging.getLogger()
    return {
        "category": plain(category.name),
        "pools": (loop.controller.pools_version, packed(list(loop.controller.pools.values()))),
        "output_bytes": loop.settings.output_bytes,
        "log_level": int(root.getEffectiveLevel()),  # it may be of an enum, which marshal does not take
        "log_levels": _levels(root.manager),
        "main": mainmodule.preparation_data(loop.controller.start_method == "fork"),
        "managers_key": mainmodule.managers_key(),
        "preload": tuple(map(plain, category.preload)),
        "initializer": initializer,
        "work_folder": _folder(),
        "heartbeat_s": loop.settings.heartbeat_s,
    }


def _levels(manager: logging.Manager) -> dict[str, int]:
    """Return the levels that were set for single loggers, so that workers make the records that are wanted, and no others."""
    loggers = list(manager.loggerDict.items())
    return {plain(name): int(logger.level) for name, logger in loggers if isinstance(logger, logging.Logger) and logger.level}


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
