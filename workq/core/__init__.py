"""Decisions only. Nothing here knows I/O, a clock, a thread or randomness, and nothing here imports another room of workq
but ``config`` and ``errors``."""
