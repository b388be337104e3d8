"""Part: what the methods of a work queue share."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from workq.controller.records import Options, Queue
from workq.errors import is_handle
from workq.seeing.completion import public_names

if TYPE_CHECKING:
    from workq.controller.intake import Intake
    from workq.face.carrying import Carried
    from workq.face.session import Session


class Part:
    """What a work queue's object has; `WorkMgr` sets it, `detach` replaces the row, and nobody else changes anything."""

    # So that a name that was mistyped (`wq.num_worker = 3`) is an error. Those who inherit from this have empty ones.
    __slots__ = (
        "__weakref__",
        "_carried",
        "_finalizer",
        "_former",
        "_inline",
        "_intake",
        "_intakes",
        "_row",
        "_sessions",
        "controller",
    )

    controller: Any  # of workers, of none, or the parent's: see manager.py, hosts/
    _row: Queue
    _inline: bool
    _intake: Intake
    _intakes: dict[Options, Intake]  # and not the views, which refer to us
    _former: weakref.WeakSet[Intake]  # those that only views still hold
    _carried: Carried | None
    _sessions: weakref.WeakSet[Session]
    _finalizer: weakref.finalize[[Queue], Any]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"WorkMgr {self._row.name}")

    def __dir__(self) -> list[str]:
        """Return the public names: what completion offers."""
        return public_names(self)

    def _is_detached(self) -> bool:
        return type(self._row) is not Queue


__all__ = ["Part"]
