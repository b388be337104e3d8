"""Run an example on a machine that has Python 3.11+ and nothing else: ``python3 examples/run.py census --kill-workers``.

Makes a virtual environment ``.venv-3.x`` with workq in it (once), and runs the example there with the rest of the command line.
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
    if arguments and arguments[0] in ("-h", "--help"):
        print(help_text(examples))
        return 0
    if not arguments or arguments[0] not in examples:
        print(f"usage: python3 examples/run.py {'|'.join(examples)} [option ...]\n--help says what they do.", file=sys.stderr)
        return 2
    try:
        environment.check_version()
        python = environment.ensure(".venv", "")
    except environment.NotMade as error:
        print(error, file=sys.stderr)
        return environment.NO_ENVIRONMENT
    return os.execv(python, [python, str(examples[arguments[0]]), *arguments[1:]])  # does not return


def help_text(examples):
    """Return what --help says: how to call this, and the first sentence of each example."""
    firsts = {name: first_line(path) for name, path in examples.items()}
    width = max(map(len, examples))
    folder = HERE.parent / f".venv-{sys.version_info[0]}.{sys.version_info[1]}"
    return "\n".join(
        [
            "usage: python3 examples/run.py EXAMPLE [option ...]",
            "",
            "Runs an example on a machine that has Python 3.11+ and nothing else. The first time it makes a virtual environment",
            f"in {folder} and installs workq into it, which takes about a quarter of a minute.",
            "",
            *(f"  {name:<{width}}  {first}" for name, first in firsts.items()),
            "",
            "EXAMPLE --help says which options it has.",
        ]
    )


def first_line(path):
    """Return the first line of a file's docstring, which is its first line too."""
    return path.read_text().split("\n", 1)[0].strip('"')


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
