"""What a category may say of its workers' surroundings: checked at the call, and brought into the form in which it travels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workq.errors import ArgumentError
from workq.given.arguments import plain

SPREAD = "spread"
DEVICES = "CUDA_VISIBLE_DEVICES"
MARK = "WORKQ_WORKER"  # by which a worker's processes are known: not the application's to set


def checked_env(env: object, devices: object) -> dict[str, str | None]:
    """Return a copy of the variables; raise where one cannot be set."""
    if not isinstance(env, Mapping):
        raise ArgumentError(f"env must be a mapping of names to str, or to None (unset), not {env!r}")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ArgumentError(f"env must have names that are str without '=' and NUL, not {name!r}")
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise ArgumentError(f"env[{name!r}] must be a str without NUL, or None to unset it, not {value!r}")
    if MARK in env:
        raise ArgumentError(f"env must not have {MARK}, by which workers are told from other processes")
    if devices is not None and DEVICES in env:
        raise ArgumentError(f"env must not have {DEVICES} where devices= is given, which sets it")
    return {plain(name): None if value is None else plain(value) for name, value in env.items()}


def checked_cwd(cwd: object) -> str | None:
    """Return the folder as an absolute path; raise where there is none."""
    if cwd is None:
        return None
    if not isinstance(cwd, str | os.PathLike):
        raise ArgumentError(f"cwd must be a path or None, not {cwd!r}")
    path = os.path.abspath(os.fsdecode(os.fspath(cwd)))
    if not os.path.isdir(path):
        raise ArgumentError(f"cwd must be an existing folder, not {path!r}")
    return path


def checked_devices(devices: object) -> tuple[str, ...] | None:
    """Return the devices as texts; raise where one is none."""
    if devices is None:
        return None
    if isinstance(devices, str | bytes) or not isinstance(devices, Sequence) or not devices:
        raise ArgumentError(f"devices must be a sequence of device numbers or names, as in [0, 1], not {devices!r}")
    for device in devices:
        number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
        if not number and not (isinstance(device, str) and device and "\0" not in device):
            raise ArgumentError(f"devices must be numbers of 0 or more, or names (a UUID, '0,1'), not {device!r}")
    return tuple(map(str, devices))


def checked_affinity(affinity: object) -> tuple[tuple[int, ...], ...] | None:
    """Return a tuple of CPUs for each worker by rank, counted round; raise where a CPU may not be used here."""
    if affinity is None:
        return None
    usable = _usable()
    if isinstance(affinity, str) and affinity == SPREAD:
        return tuple((cpu,) for cpu in sorted(usable))
    if isinstance(affinity, str) or not isinstance(affinity, Sequence) or not affinity:
        raise ArgumentError(f"affinity must be 'spread', None, or a sequence of CPU sets, as in [{{0, 1}}, {{2, 3}}], not {affinity!r}")
    return tuple(_checked_set(entry, usable) for entry in affinity)


def _checked_set(entry: object, usable: set[int]) -> tuple[int, ...]:
    cpus: list[Any] = [entry] if isinstance(entry, int) else list(entry) if isinstance(entry, Iterable) else []
    if not cpus or isinstance(entry, str | bytes | bool):
        raise ArgumentError(f"affinity must hold a CPU number or a set of them for each worker, not {entry!r}")
    for cpu in cpus:
        if not isinstance(cpu, int) or isinstance(cpu, bool) or cpu not in usable:
            raise ArgumentError(f"affinity must name CPUs that this process may use ({', '.join(map(str, sorted(usable)))}), not {cpu!r}")
    return tuple(sorted({int(cpu) for cpu in cpus}))


def _usable() -> set[int]:
    if not hasattr(os, "sched_getaffinity"):
        raise ArgumentError("affinity cannot be set on this system")
    return os.sched_getaffinity(0)
