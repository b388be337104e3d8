"""Run the benchmark on a machine that has Python 3.11+ and nothing else: ``python3 tests/bench/run.py``.

Makes a virtual environment ``.venv-bench-3.x`` with workq and its peers in it (once), and runs ``tests.bench`` there with the command line.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / ".ci"))
sys.dont_write_bytecode = True
import environment  # noqa: E402  the line above says where it is


def main(arguments: list[str]) -> int | None:
    """Make the environment, become the benchmark."""
    try:
        environment.check_version()
        python = environment.ensure(".venv-bench", "bench")
    except environment.NotMade as error:
        print(error, file=sys.stderr)
        return int(environment.NO_ENVIRONMENT)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(python, [python, "-m", "tests.bench", *arguments])  # does not return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
