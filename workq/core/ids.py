"""The numbers by which queues, workers and units are told apart. The manager needs no more of the core at its import."""

from __future__ import annotations

from typing import NewType

QueueId = NewType("QueueId", int)
WorkerId = NewType("WorkerId", int)
UnitId = NewType("UnitId", int)
AlarmId = NewType("AlarmId", int)
