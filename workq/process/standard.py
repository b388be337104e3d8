"""Descriptors of ours stay above 0, 1 and 2: where an application has closed those, what is printed there would go into ours."""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False  # typing itself would cost a start milliseconds
if TYPE_CHECKING:
    from typing import Any


def raise_above_standard(descriptors: list[int]) -> None:
    """Replace those below 3; in a process that is given them these three are taken."""
    for index, descriptor in enumerate(descriptors):
        if descriptor < 3:
            descriptors[index] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(descriptor)


def above_standard(end: Any) -> Any:
    """Return this socket, or one in its place that lies above 2."""
    if end.fileno() > 2:
        return end
    try:
        return type(end)(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
    finally:
        end.close()
