"""Runs in the worker process. Knows nothing of the parent's rooms: may import ``transport``, ``context``, ``config`` and
``interruption`` only (``errors`` where something has gone wrong), and nothing heavy before a unit needs it (each import here is paid
at the start of the launcher)."""
