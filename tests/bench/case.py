"""One measurement of one contender, in a process of its own: ``case.py`` is what `runner` starts.

The figures go to a file as soon as they are there: a library that hangs when it is closed is shown with its figures.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.bench.adapters import LIBRARIES
from tests.bench.adapters.without import WITHOUT
from tests.bench.scale import Scale
from tests.bench.workloads import WORKLOADS


def main() -> None:
    """Measure what the command line says, and leave by the short way: what a library has left running is the runner's to end."""
    workload_name, contender, folder, quick, loops_per_ms = sys.argv[1:6]
    scale = Scale(quick == "quick", int(loops_per_ms), Path(folder) / "work")
    scale.folder.mkdir()
    workload = WORKLOADS[workload_name]
    try:
        if contender in workload.limits:
            _tell(folder, figures=workload.limits[contender](scale))
        else:
            library = {**LIBRARIES, **WITHOUT}[contender]()
            _tell(folder, figures=workload.measure(library, scale))
            library.close()
    except BaseException as error:
        traceback.print_exc()
        _tell(folder, error=f"{type(error).__name__}: {error}".splitlines()[0][:160])
    sys.stdout.flush()
    os._exit(0)


def _tell(folder: str, **answer: Any) -> None:
    path = Path(folder) / "answer.json"
    if not path.exists():
        path.with_suffix(".new").write_text(json.dumps(answer))
        path.with_suffix(".new").rename(path)
