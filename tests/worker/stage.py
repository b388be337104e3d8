"""A process whose descriptors 1 and 2 are pipes of its own, as a worker's are; what its units have written is told to the test."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from tests.support import application

PRELUDE = """
import json, os, sys

report = os.dup(1)
readers = []
for number in (1, 2):
    reader, writer = os.pipe()
    os.dup2(writer, number)
    os.close(writer)
    readers.append(reader)

from workq.worker.output import Output

output = Output(*readers, 1000)
output.install()

def unit(function, look=True):
    function()
    tell(output.take(look))

def tell(what):
    os.write(report, json.dumps(what).encode() + b"\\n")
"""


def told(code: str, **environment: str) -> list[Any]:
    """Run the code after the prelude; return what it has told, and fail if it did not end well."""
    end = application(PRELUDE + textwrap.dedent(code), **environment)
    assert end.returncode == 0, (end.returncode, end.stdout, end.stderr)
    return [json.loads(line) for line in end.stdout.splitlines()]


def chunks(code: str) -> list[tuple[int, str]]:
    """The same, for one unit: its chunks."""
    (one,) = told(code)
    return [(number, text) for number, text in one]
