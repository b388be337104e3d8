"""The two commands for an empty machine, as far as they can be tried without making an environment."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT


@pytest.fixture
def environment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", [["examples/run.py"], ["examples/run.py", "nonsense"], ["tests/run.py", "--nonsense"]], ids=" ".join)
def test_a_wrong_command_line_ends_with_2_and_says_what_there_is(command: list[str]) -> None:
    answer = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage: ")


def test_help_ends_with_0_and_says_what_each_example_does() -> None:
    answer = subprocess.run(
        [sys.executable, "examples/run.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    for path in (ROOT / "examples").glob("*.py"):
        if path.stem != "run":
            assert f"  {path.stem} " in answer.stdout
    assert "census" in answer.stdout
    assert "A census of Python's standard library" in answer.stdout


def test_a_python_without_the_venv_module_is_named_with_its_package(environment: ModuleType, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(environment.NotMade, match=r"apt-get install python3-venv"):
        environment.ensure(".venv-that-is-never-made", "", python=str(python))
    assert not (ROOT / ".venv-that-is-never-made").exists()


def test_an_old_python_is_refused_in_one_sentence(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "OLDEST", (9, 0))
    with pytest.raises(environment.NotMade, match=r"^workq needs Python 9\.0 or newer; this is .*\.$"):
        environment.check_version()


def test_the_pythons_of_this_machine_are_found_once_for_each_version(environment: ModuleType) -> None:
    versions = [version for version, _ in environment.installed_pythons()]
    assert sys.version_info[:2] in versions or sys.version_info[:2] > environment.SUPPORTED[-1]
    assert versions == sorted(set(versions))
