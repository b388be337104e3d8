"""What people expect of a library around its code: kinds of page, a changelog, versions, names, a licence."""

from __future__ import annotations

import re
import tomllib

import workq
from tests.support import ROOT


def test_the_index_has_a_part_for_each_kind_of_page() -> None:
    """A tutorial, pages for a task, a reference, explanations; guarantees are looked up."""
    index = (ROOT / "docs" / "index.md").read_text()
    parts = dict(re.findall(r"^\*\*(\w[\w ]*)\*\*\n(.*?)(?=^\*\*|\Z)", index, re.MULTILINE | re.DOTALL))
    assert list(parts) == ["Learn", "Do", "Look up", "Understand"]
    for part, page in [
        ("Learn", "tutorial.md"),
        ("Do", "howto/"),
        ("Look up", "reference.md"),
        ("Look up", "guarantees.md"),
        ("Understand", "design.md"),
    ]:
        assert f"]({page}" in parts[part]


def test_the_changelog_begins_with_the_version_that_is_installed() -> None:
    """With what is not released yet, or with that version; versions are semantic."""
    changelog = (ROOT / "docs" / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)[1] in ("Unreleased", workq.__version__)  # type: ignore[index]
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", workq.__version__)
    assert project()["version"] == workq.__version__


def test_the_distribution_is_workq_manager_under_the_apache_licence() -> None:
    assert (project()["name"], project()["license"]) == ("workq-manager", "Apache-2.0")
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence


def test_the_page_for_those_who_come_from_another_pool_names_each_of_them() -> None:
    page = (ROOT / "docs" / "coming-from.md").read_text()
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(parts) == [
        "InterSystems Work Queue Manager",
        "concurrent.futures.ProcessPoolExecutor",
        "multiprocessing.Pool",
        "pebble",
        "loky",
        "joblib",
        "Celery's prefork pool",
    ]
    for name, part in parts.items():
        assert "| there | here |" in part, name
        assert re.search(r"missing", part, re.IGNORECASE), f"{name}: what is missing?"
        assert re.search(r"better", part, re.IGNORECASE), f"{name}: what is better?"


def project() -> dict[str, str]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def test_settings_that_the_pages_name_exist() -> None:
    named = {name for page in (ROOT / "docs").rglob("*.md") for name in re.findall(r"\bSettings\.([a-z]\w*)", page.read_text())}
    assert {"idle_timeout_s"} <= named
    assert named - set(dir(workq.Settings)) == set()
