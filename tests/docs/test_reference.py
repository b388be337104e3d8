"""docs/reference.md says what the docstrings say."""

from __future__ import annotations

import inspect

import pytest

import workq
from tests.tools import write_reference


def test_the_reference_is_up_to_date() -> None:
    assert write_reference.PAGE.read_text() == write_reference.text(), "run: python -m tests.tools.write_reference"


@pytest.mark.parametrize("name", workq.__all__)
def test_each_public_name_can_be_had_and_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(workq, name))
