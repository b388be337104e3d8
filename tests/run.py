"""Check everything on a machine that has Python 3.11+ and nothing else: ``python3 tests/run.py``.

Makes a virtual environment ``.venv-test-3.x`` (once, and again when pyproject.toml changes), then runs lint, types, import contracts,
the coverage of the core, and the tests. Exit codes: 0 all passed, 1 something failed, 2 wrong command line, 3 no environment.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))
sys.dont_write_bytecode = True
import environment  # noqa: E402  the line above says where it is

# What is run for each kind of check, in the environment; the tests come last, so that pytest's closing line is the end of it.
CHECKS = {
    "lint": ["-m", "ruff", "check", "."],
    "format": ["-m", "ruff", "format", "--check", "--diff", "."],
    "types": ["-m", "mypy"],
    "import contracts": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", "--no-logo"],
    "the core's coverage": ["-m", "coverage", "run", "-m", "pytest", "-q", "tests/core"],
    "the core's coverage, all of it": ["-m", "coverage", "report"],
}


def main():
    """Read the command line, run what it asks for, and return the exit code."""
    options = _parse()
    try:
        environment.check_version()
        if options.all_pythons:
            return _under_each_python(options)
        python = environment.ensure(".venv-test", "test,lint", fresh=options.fresh)
    except environment.NotMade as error:
        print(error, file=sys.stderr)
        return environment.NO_ENVIRONMENT
    failed = [] if options.tests_only else _checks(python)
    if not _tests(python, options.pytest):
        failed.append("tests")
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return environment.FAILED if failed else environment.PASSED


def _parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests-only", action="store_true", help="no lint, types, import contracts and coverage")
    parser.add_argument("--all-pythons", action="store_true", help="the tests under each supported Python that is installed")
    parser.add_argument("--fresh", action="store_true", help="make the virtual environment anew")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after a --")
    return parser.parse_args()


def _checks(python):
    """Run all checks, each to its end, and return the names of those that failed."""
    failed = []
    for name, command in CHECKS.items():
        start = time.monotonic()
        answer = subprocess.run(
            [python, *command],
            cwd=str(environment.ROOT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        took = time.monotonic() - start
        print(f"{name:<34} {'FAILED' if answer.returncode else 'passed'} {took:6.1f} s", flush=True)
        if answer.returncode:
            print(answer.stdout, flush=True)
            failed.append(name)
    return failed


# Most tests wait for processes: three lines of them keep two processors busy. What is told to pytest by hand comes later, and so wins.
SIDE_BY_SIDE = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal"]


def _tests(python, arguments):
    # The tests start thousands of interpreters; where PYTHONDONTWRITEBYTECODE is set each would compile the project for itself.
    subprocess.run([python, "-m", "compileall", "-q", "workq", "tests", "examples"], cwd=str(environment.ROOT), stdin=subprocess.DEVNULL)
    return (
        subprocess.run([python, "-m", "pytest", *SIDE_BY_SIDE, *arguments], cwd=str(environment.ROOT), stdin=subprocess.DEVNULL).returncode
        == 0
    )


def _under_each_python(options):
    """Run the tests under one interpreter of each supported version, and print a line for each at the end."""
    rows = []
    for version, path in environment.installed_pythons():
        name = f"{version[0]}.{version[1]}"
        print(f"\nPython {name} ({path})", flush=True)
        python = environment.ensure(".venv-test-each", "test", python=path, fresh=options.fresh)
        rows.append((name, path, _tests(python, options.pytest)))
    for name, path, passed in rows:
        print(f"Python {name:<6} {'passed' if passed else 'FAILED'}  {path}")
    return environment.PASSED if rows and all(row[2] for row in rows) else environment.FAILED


if __name__ == "__main__":
    os.chdir(str(environment.ROOT))
    sys.exit(main())
