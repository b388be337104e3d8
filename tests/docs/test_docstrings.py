"""The examples in workq's own docstrings run. In those of a work queue's methods ``wq`` is one of two workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, ROOT

WITH_EXAMPLES = [path for path in sorted((ROOT / "workq").rglob("*.py")) if ">>> " in path.read_text()]
RUN = """
import doctest, importlib, inspect, sys

from workq import WorkMgr

class Runner(doctest.DocTestRunner):
    # gives each example a queue of its own

    def run(self, test, *args, **kwargs):
        with WorkMgr(2, name="wq") as test.globs["wq"]:
            return super().run(test, *args, **kwargs)

class Finder(doctest.DocTestFinder):
    # looks where a function stands: the parts of a WorkMgr have theirs go by its name

    def _from_module(self, module, object):
        return super()._from_module(module, object) or (inspect.isfunction(object) and object.__globals__ is vars(module))

module = importlib.import_module(sys.argv[1])
flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
runner = Runner(optionflags=flags)
for test in Finder().find(module):
    if test.examples:
        runner.run(test)
failed, tried = runner.failures, runner.tries
sys.exit(1 if failed or not tried else 0)
"""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.slow
@pytest.mark.parametrize("module", [module_of(path) for path in WITH_EXAMPLES])
def test_the_examples_of_a_module_run(module: str) -> None:
    command = [sys.executable, "-c", RUN, module]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * DEADLINE_S, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
