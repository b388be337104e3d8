"""Show versions, usable CPUs, effective limits, start methods and environment variables. Starts nothing."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from workq.category import standard_categories
from workq.config import DEFAULTS
from workq.errors import ArgumentError
from workq.given import environment
from workq.given.cpus import usable_cpus
from workq.seeing.tables import table

LIMITS = ("default_workers", "max_workers", "max_active_workers", "max_total_workers", "always_queue")
LIBRARIES = {
    "psutil": "",
    "cloudpickle": "",
    "multiprocessing-logging": "",
    "typing-extensions": "",
    "cronsim": "cron",
    "opentelemetry-api": "opentelemetry",
    "numpy": "",
    "joblib": "joblib",
    "distributed": "dask",
    "prometheus-client": "prometheus",
    "rich": "rich",
}
BOLD, RED, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[0m"


def gather() -> dict[str, Any]:
    """Return all of it as plain data."""
    problems: list[str] = []
    return {
        "workq": sys.modules["workq"].__dict__["__version__"],
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "usable_cpus": usable_cpus(),
        "cpus": os.cpu_count(),
        "categories": _limits(problems),
        "start_method": _checked(environment.start_method, problems),
        "start_methods": list(environment.START_METHODS),
        "environment": {name: os.environ.get(name) for name in environment.VARIABLES},
        "log_level": _checked(environment.log_level, problems),
        "settings": DEFAULTS._asdict(),
        "problems": problems,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _limits(problems: list[str]) -> dict[str, dict[str, Any]]:
    categories = _checked(standard_categories, problems) or {}
    return {name: {limit: getattr(category, limit) for limit in LIMITS} for name, category in categories.items()}


def _checked(look: Any, problems: list[str]) -> Any:
    """Return what one of the variables says, or None where it says nonsense."""
    try:
        return look()
    except ArgumentError as error:
        problems.append(str(error))
        return None


def text(data: dict[str, Any], coloured: bool) -> str:
    """Return it for people."""
    bold, red, plain = (BOLD, RED, PLAIN) if coloured else ("", "", "")
    libraries = [f"{name} {version}" for name, version in data["libraries"].items() if version]
    missing = [f"{name} ({LIBRARIES[name]})" for name, version in data["libraries"].items() if not version and LIBRARIES[name]]
    lines = [
        f"{bold}workq {data['workq']}{plain}, Python {data['python']}, {data['platform']}",
        f"with {', '.join(libraries)}",
        *([f"without {', '.join(missing)}"] if missing else []),
        "",
        f"usable CPUs   {data['usable_cpus']} of {data['cpus']}",
        f"start method  {data['start_method'] or '-'} (of {', '.join(data['start_methods'])})",
        "",
    ]
    rows = [
        [name, *("-" if limits[limit] is None else str(limits[limit]) for limit in LIMITS)] for name, limits in data["categories"].items()
    ]
    lines += [table([["category", *LIMITS]], rows), ""] if rows else []
    lines += [table([["variable", "value"]], [[name, value or "-"] for name, value in data["environment"].items()])]
    lines += [f"{red}{problem}{plain}" for problem in data["problems"] if coloured]
    return "\n".join(lines)
