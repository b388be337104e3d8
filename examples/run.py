"""Run an example on a machine that has Python 3.11+ and nothing else: ``python3 examples/run.py census --kill-workers``.

Makes a virtual environment ``.venv`` with workq in it (once), and runs the example there with the rest of the command line.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))
sys.dont_write_bytecode = True
import environment  # noqa: E402  the line above says where it is

HERE = Path(__file__).resolve().parent


def main(arguments):
    """Choose the example, make the environment, become the example."""
    examples = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem != "run"}
    if not arguments or arguments[0] not in examples:
        print(f"usage: python3 examples/run.py {'|'.join(examples)} [option ...]", file=sys.stderr)
        return 2
    try:
        environment.check_version()
        python = environment.ensure(".venv", "")
    except environment.NotMade as error:
        print(error, file=sys.stderr)
        return environment.NO_ENVIRONMENT
    return os.execv(python, [python, str(examples[arguments[0]]), *arguments[1:]])  # does not return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
