"""Who may import what: the rules that `lint-imports` cannot say (see setup.cfg for those that it can)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "workq"

# Each library that is not the standard one is imported in one file, so that it can be replaced, or be missing, in one place.
ONLY_IN = {
    "psutil": "process/probe.py",
    "cronsim": "schedule.py",
    "opentelemetry": "transport/incontext.py",
    "cloudpickle": "transport/codec.py",
    "multiprocessing_logging": "worker/logs.py",
    "prometheus_client": "adapters/prometheus.py",
    "tqdm": "seeing/bar.py",
    "rich": "seeing/bar.py",
    "IPython": "seeing/bar.py",
    "joblib": "adapters/joblib.py",
    "pytest": "adapters/pytest_plugin.py",
}

# What the pure core may import besides itself: words to write decisions down with.
CORE_MAY_IMPORT = set("__future__ bisect collections dataclasses enum functools heapq itertools math operator typing".split())


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            assert node.module is not None
            names = [alias.name for alias in node.names]
            if node.module != "workq" or not all(is_room(name) for name in names):
                yield node.module
            if node.module.split(".")[0] == "workq":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_room(name: str) -> bool:
    """Tell whether a name in the package is a file or a folder of it, and not one of the public names."""
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_is_imported_in_one_file(library: str) -> None:
    importers = {str(path.relative_to(PACKAGE)) for path in modules() if library in roots(path)}
    assert importers <= {ONLY_IN[library]}


def test_nothing_but_the_declared_dependencies_is_imported() -> None:
    allowed = sys.stdlib_module_names | set(ONLY_IN) | {"typing_extensions", "workq"}
    strangers = {str(path.relative_to(PACKAGE)): roots(path) - allowed for path in modules() if roots(path) - allowed}
    assert strangers == {}


@pytest.mark.parametrize("path", modules(PACKAGE / "core"), ids=lambda path: path.name)
def test_the_core_imports_only_words_to_decide_with(path: Path) -> None:
    strangers = {name for name in imports(path) if name.split(".")[0] not in CORE_MAY_IMPORT and not name.startswith("workq.")}
    assert strangers == set()


def test_no_room_imports_the_front_door() -> None:
    """``import workq`` inside of workq would be a circle, and would load in a worker what only the parent needs."""
    importers = {str(path.relative_to(PACKAGE)) for path in modules() if "workq" in set(imports(path))}
    assert importers == set()


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter."""
    code = f"import sys, json; before = set(sys.modules); {statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    answer = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(answer.stdout))


def test_import_workq_costs_less_than_import_concurrent_futures_process() -> None:
    ours, theirs = loaded_by("import workq"), loaded_by("import concurrent.futures.process")
    assert len(ours) <= len(theirs) / 4, sorted(ours)
    heavy = "asyncio cloudpickle concurrent.futures.process ctypes logging multiprocessing psutil socket subprocess threading"
    assert ours & set(heavy.split()) == set()


def test_import_workq_starts_nothing() -> None:
    code = "import workq, os; print(len(os.listdir('/proc/self/task')), open('/proc/self/task/%d/children' % os.getpid()).read().split())"
    answer = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == ["1", "[]"]


def test_a_worker_loads_none_of_the_parents_rooms() -> None:
    """The launcher imports this once for all workers; each further module is time before the first result, and memory in each."""
    loaded = loaded_by("import workq.process.launcher, workq.worker.main")
    parents = set("adapters controller core engines errors face given hosts manager seeing testing unit".split())
    assert {name for name in loaded if name.startswith("workq.") and name.split(".")[1] in parents} == set()
    assert loaded & {"multiprocessing", "logging", "subprocess", "psutil", "cloudpickle", "concurrent.futures.process"} == set()
    assert "resource" not in loaded, "where a unit has loaded it the limits are looked at after each that took its time (processwide.py)"


def test_import_of_the_manager_leaves_what_comes_with_the_first_unit_for_later() -> None:
    """A program waits for it at its start; the loop, the core and the engine are loaded while the launcher comes up."""
    loaded = loaded_by("import workq.manager")
    later = set("controller.loop core.events core.scheduler engines.local halt hosts hosts.inline".split())
    assert {name for name in loaded if name.removeprefix("workq.") in later} == set()
    assert loaded & {"multiprocessing", "concurrent.futures.process", "subprocess", "typing_extensions", "uuid"} == set()


def test_the_first_unit_does_not_wait_for_what_a_halt_is_made_of() -> None:
    """Half of multiprocessing: the controller's thread loads it, once it has asked for the first worker."""
    assert loaded_by("import workq.controller.loop, workq.engines.local") & {"multiprocessing", "workq.halt", "uuid"} == set()
