"""Do something at a certain bytecode of ours: what threads and signals may do to each other is tried, not waited for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


def at_bytecode(number: int, files: tuple[str, ...], act: Callable[[], object], strike: Callable[[], object]) -> int:
    """Act, and do something else right before a bytecode of it, in the same thread, as a signal handler would.

    Args:
        number: Before which bytecode, from 1 on.
        files: The ends of the names of the files whose bytecodes are counted.
        act: What is done in steps; what it raises is raised.
        strike: What is done before the bytecode. What it raises is raised there.

    Returns:
        How many bytecodes ``act`` had.
    """
    reached = 0

    def at_step(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal reached
        if not frame.f_code.co_filename.endswith(files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            reached += 1
            if reached == number:
                strike()
        return at_step

    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks whether any frame has it when it begins to trace
    sys.settrace(at_step)
    try:
        act()
    finally:
        sys.settrace(None)
    return reached


def at_each_step(
    files: tuple[str, ...],
    prepare: Callable[[], Any],
    act: Callable[[Any], object],
    meanwhile: Callable[[], object],
    may: Callable[[], bool] = lambda: True,
) -> int:
    """Act again and again, and before the n-th bytecode of that have another thread do something, to its end.

    Args:
        files: The ends of the names of the files whose bytecodes are counted.
        prepare: What is done before each; ``act`` is given what it returns.
        act: What is done in steps.
        meanwhile: What the other thread does. It must not wait for what ``act`` holds at that step.
        may: Says whether it may be done at this step.

    Returns:
        How many bytecodes the last ``act`` had.
    """

    def in_another_thread() -> None:
        if may():
            other = threading.Thread(target=meanwhile)
            other.start()
            other.join()

    step = reached = 0
    while reached >= step:
        step += 1
        prepared = prepare()
        reached = at_bytecode(step, files, lambda: act(prepared), in_another_thread)  # noqa: B023
    return reached
