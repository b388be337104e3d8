"""Virtual environments with this project in them, made with the standard library and pip alone.

Used by ``examples/run.py`` and ``tests/run.py``, which start on a machine that has Python and nothing else. So this file imports
nothing that has to be installed, and can be read by an older Python far enough to say that it is too old.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
SUPPORTED = ((3, 11), (3, 12), (3, 13))

# By a line of a path file, and not by an import hook, which would cost each start of that interpreter 10 ms.
IN_PLACE = ("--config-settings", "editable_mode=compat")

PASSED = 0
FAILED = 1
NO_ENVIRONMENT = 3  # 2 is argparse's, for a command line that it cannot read


class NotMade(Exception):
    """There is no environment to run in; the message says what to do."""


def ensure(name, extras, python=sys.executable, fresh=False):
    """Return the python of the virtual environment ``name``, for this interpreter's version, with the project and these extras.

    Its folder has the version of Python behind its name, and is used again for as long as pyproject.toml stays the same. The
    project is installed in place, so that changes of its code count at once.
    """
    version = _version_of(python)
    folder = ROOT / (f"{name}-{version[0]}.{version[1]}" if version else name)
    stamp = folder / "stamp"
    wanted = _fingerprint(extras)
    inner = folder / "bin" / "python"
    if not fresh and stamp.exists() and stamp.read_text() == wanted and version and _version_of(str(inner)) == version:
        return str(inner)
    try:
        _make(folder, python, extras)
        stamp.write_text(wanted)  # last, so that what was left half made is made again
    except KeyboardInterrupt:
        raise NotMade(f"Interrupted: {folder.name} is not made; the next call makes it from the beginning.") from None
    return str(inner)


def _make(folder, python, extras):
    """Make an environment in a folder, whatever is there."""
    _say(f"making {folder.name} with {python}, once: this takes about a quarter of a minute ...")
    _check_venv_module(python)
    shutil.rmtree(str(folder), ignore_errors=True)
    _run([python, "-m", "venv", str(folder)], f"The virtual environment {folder} cannot be made.")
    target = f"{ROOT}[{extras}]" if extras else str(ROOT)
    _run(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *IN_PLACE, "--editable", target],
        "pip cannot install the project's dependencies (it needs a package index within reach).",
    )
    _say(f"made {folder.name}")


def check_version():
    """Refuse a Python that is too old, in one sentence."""
    if sys.version_info < OLDEST:
        raise NotMade(f"workq needs Python {OLDEST[0]}.{OLDEST[1]} or newer; this is {sys.version.split()[0]} ({sys.executable}).")


def installed_pythons():
    """Return (version, path) of one interpreter of each supported version that is installed, oldest first."""
    found = {}
    for path in _candidates():
        version = _version_of(path)
        if version in SUPPORTED and version not in found:
            found[version] = path
    return sorted(found.items())


def _candidates():
    yield sys.executable
    for version in SUPPORTED:
        path = shutil.which(f"python{version[0]}.{version[1]}")
        if path:
            yield path
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    if versions.is_dir():
        for folder in sorted(versions.iterdir()):
            yield str(folder / "bin" / "python3")


def _version_of(path):
    """Return (major, minor) of an interpreter, or None where it does not run (a shim without a version behind it)."""
    try:
        answer = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            text=True,
        )
        return tuple(int(word) for word in answer.stdout.split()) if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _fingerprint(extras):
    return hashlib.sha256("\n".join([extras, (ROOT / "pyproject.toml").read_text()]).encode()).hexdigest()


def _check_venv_module(python):
    answer = subprocess.run([python, "-c", "import venv, ensurepip"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if answer.returncode:
        raise NotMade(f"{python} has no venv module. On Debian and Ubuntu it is a package of its own: apt-get install python3-venv")


def _run(command, on_failure):
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if answer.returncode:
        raise NotMade(f"{on_failure}\n{answer.stdout.strip()}")


def _say(text):
    print(text, file=sys.stderr, flush=True)
