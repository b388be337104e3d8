"""The examples in workq's own docstrings run. In them ``getfixture("wq")`` is a fresh queue of two workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, ROOT

WITH_EXAMPLES = [path for path in sorted((ROOT / "workq").rglob("*.py")) if ">>> " in path.read_text()]
RUN = """
import doctest, importlib, sys

def getfixture(name):
    import workq
    queues.append(workq.WorkMgr(2, name=name))
    return queues[-1]

queues = []
module = importlib.import_module(sys.argv[1])
flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
failed, tried = doctest.testmod(module, optionflags=flags, extraglobs={"getfixture": getfixture})
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
