"""The acting half: one thread around the core, and the hot path beside it. It performs; it never decides.

May import ``engines``, ``core``, ``process``, ``transport`` and what lies below; never ``manager``."""

from workq.controller.controller import Controller, locks, metrics, workers

__all__ = ["Controller", "locks", "metrics", "workers"]
