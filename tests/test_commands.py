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


def stand_in(folder: Path, version: str, instead_of_venv: str = "") -> str:
    """Write what passes for an interpreter, and notes each environment that it makes."""
    make = instead_of_venv or f'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo "$3" >> "{folder}/made"'
    python = folder / f"python-{len(list(folder.iterdir()))}"
    python.write_text(f'#!/bin/sh\ncase "$*" in *version_info*) echo {version};; "-m venv "*) {make};; esac\n')
    python.chmod(0o755)
    return str(python)


def test_an_environment_is_used_again_by_each_interpreter_of_its_version(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    older, same, newer = (stand_in(tmp_path, version) for version in ("3 11", "3 11", "3 12"))
    for python in (older, same, newer, older, newer):
        environment.ensure(".venv", "", python=python)
    assert (tmp_path / "made").read_text().split() == [str(tmp_path / ".venv-3.11"), str(tmp_path / ".venv-3.12")]
    (tmp_path / "pyproject.toml").write_text("[project]")
    environment.ensure(".venv", "", python=same)
    assert (tmp_path / "made").read_text().split()[2:] == [str(tmp_path / ".venv-3.11")]


def test_ctrl_c_while_an_environment_is_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    python = stand_in(tmp_path, "3 11", "kill -INT $PPID; exec sleep 60")
    code = f"""
import pathlib, sys
sys.dont_write_bytecode = True
sys.path.insert(0, {str(ROOT / ".ci")!r})
import environment
environment.ROOT = pathlib.Path({str(tmp_path)!r})
try:
    environment.ensure(".venv", "", python={python!r})
except environment.NotMade as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stdout == "Interrupted: .venv-3.11 is not made; the next call makes it from the beginning.\n", answer.stderr
    assert not (tmp_path / ".venv-3.11" / "stamp").exists()
