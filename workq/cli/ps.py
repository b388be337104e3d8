"""Show workq's processes on this machine: each application, its launcher and its workers. Only what the kernel shows of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from typing import Any

from workq.process import probe
from workq.seeing.tables import seconds, table

TITLE = re.compile(r"workq (?P<name>launcher|worker_[0-9a-f]+) of (?P<application>\d+)")
COMMAND_CHARACTERS = 60
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
HEAD = ["pid", "name", "state", "cpu", "memory", "age"]


def gather(processes: Iterable[probe.Seen] | None = None) -> list[dict[str, Any]]:
    """Return the applications that have processes of ours, among those of this machine, as plain data."""
    seen = {process.pid: process for process in (probe.processes() if processes is None else processes)}
    applications: dict[int, dict[str, Any]] = {}
    for process in sorted(seen.values()):
        match = TITLE.match(process.title)
        if match is None or process.pid == os.getpid():
            continue
        pid = int(match["application"])
        row = _row(process)
        row["name"] = match["name"]
        application = applications.setdefault(pid, {**_application(pid, seen.get(pid)), "launchers": [], "workers": []})
        application["launchers" if match["name"] == "launcher" else "workers"].append(row)
    return [applications[pid] for pid in sorted(applications)]


def _application(pid: int, process: probe.Seen | None) -> dict[str, Any]:
    if process is None:
        return {"pid": pid, "name": None, "command": None, "state": "gone"}
    return {**_row(process), "command": process.title}


def _row(process: probe.Seen) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "name": process.name,
        "user": process.user,
        "state": process.state,
        "cpu_s": round(process.cpu_s, 3),
        "rss_bytes": process.rss_bytes,
        "age_s": round(max(0.0, time.time() - process.created_at), 3),
    }


def text(applications: list[dict[str, Any]], coloured: bool) -> str:
    """Return it for people: a table for each application."""
    bold, plain = (BOLD, PLAIN) if coloured else ("", "")
    parts = []
    for application in applications:
        command = application["command"] or "an application that is gone"
        cut = command if len(command) <= COMMAND_CHARACTERS else command[: COMMAND_CHARACTERS - 3] + "..."
        own = [_cells(application)] if application["state"] != "gone" else []
        rows = [*own, *map(_cells, application["launchers"]), *map(_cells, application["workers"])]
        number = len(application["workers"])
        head = f"{bold}{application['pid']} {cut}{plain}: {number} worker{'' if number == 1 else 's'}"
        parts.append(f"{head}\n{table([HEAD], rows)}")
    return "\n\n".join(parts)


def _cells(row: dict[str, Any]) -> list[str]:
    memory = f"{row['rss_bytes'] / 2**20:.0f} MiB"
    return [str(row["pid"]), row["name"], row["state"], seconds(row["cpu_s"]), memory, seconds(row["age_s"])]
