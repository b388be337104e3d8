"""``start_method="spawn"``: a worker that is a fresh interpreter, and inherits no memory of the launcher's.

The launcher forks, and the fork executes Python anew. What the worker has to know travels in a memory file, as its command line would be
too short; its descriptors stay open over the execution, and `become.keep_only` closes the rest.
"""

from __future__ import annotations

import marshal
import os
import sys

from workq.process.become import Ends, become_worker, die_with_launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# What the new interpreter runs before it can import anything of ours.
BOOTSTRAP = (
    "import sys,marshal,os;order=marshal.load(os.fdopen({descriptor},'rb'));"
    "sys.path[:]=order['config']['path'];from workq.process.spawn import main;main(order)  # {room}"
)
ROOM = "a worker of workq" + " " * 60  # for the title


def execute_worker(name: str, ends: Ends, config: dict[str, Any], launcher_pid: int, prctl: Callable[..., int] | None) -> NoReturn:
    """Turn this process, a fork of the launcher, into a fresh interpreter that becomes a worker."""
    try:
        os.dup2(ends.output, 1)  # first, as in a fork: what the interpreter says of a start that fails is seen
        os.dup2(ends.error, 2)
        die_with_launcher(launcher_pid, prctl)  # holds over the execution
        numbers = [getattr(ends, field) for field in Ends._fields]
        order = os.memfd_create("workq-order", 0)
        os.write(order, marshal.dumps({"name": name, "ends": numbers, "config": config, "launcher_pid": launcher_pid}))
        os.lseek(order, 0, os.SEEK_SET)
        for descriptor in (*numbers, *config["bells"], config["life_fd"]):
            os.set_inheritable(descriptor, True)
        command = [*config["command"], "-c", BOOTSTRAP.format(descriptor=order, room=ROOM)]
        os.execv(command[0], command)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def main(order: dict[str, Any]) -> NoReturn:
    """In the new interpreter: load what a worker runs, and be one."""
    config = order["config"]
    prctl: Callable[..., int] | None = None
    if sys.platform == "linux":
        from workq.transport import clibrary

        prctl = clibrary.function("prctl")
    try:
        module, _, function = config["entry_point"].partition(":")
        __import__(module)
        sys.argv[:] = config["argv"]
        entry_point = getattr(sys.modules[module], function)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    become_worker(order["name"], Ends(*order["ends"]), config, order["launcher_pid"], prctl, entry_point)
