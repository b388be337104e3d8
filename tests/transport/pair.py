"""The two ends of the codec in two processes: `call` runs in an application under test, the worker's end in a process of its own."""

from __future__ import annotations

import marshal
import pickle
import subprocess
import sys
from typing import Any

from workq.transport import codec

WORKER = """
import marshal, sys
sys.path[:], prepared, function, arguments, keywords = marshal.loads(sys.stdin.buffer.read())
import pickle
from workq.transport import codec

def main():  # a name that scripts have too: theirs must be found, not this
    raise AssertionError("the launcher's own main was called")

out, sys.stdout = sys.stdout, sys.stderr
codec.set_main(pickle.loads(prepared) if prepared else None)
try:
    call, args = codec.load(function), codec.load(arguments)
    value = call(*args[0], **args[1]) if keywords else call(*args)
    try:
        answer = True, pickle.dumps(value, 5)
    except Exception:
        answer = True, codec.dump_result(value, "q:1 call")
except BaseException as error:
    answer = False, codec.dump_error(error, "q:1 call")
out.buffer.write(marshal.dumps(answer))
"""


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the function in another process; return or raise what came of it."""
    if codec.preparing():
        raise RuntimeError("a unit was queued while the main module was run again")
    frames = (sys.path, codec.preparation_data(), codec.dump_function(function)[0], dump(args, kwargs), bool(kwargs))
    answer = subprocess.run([sys.executable, "-S", "-c", WORKER], input=marshal.dumps(frames), stdout=subprocess.PIPE, check=True)
    done, data = marshal.loads(answer.stdout)
    if done:
        return pickle.loads(data)
    raise codec.load_error(data)


def dump(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Pickle as the hot path does: plainly, and the slow way where that fails or would not be found again."""
    if kwargs:
        return codec.dump_arguments(args, kwargs)
    try:
        data = pickle.dumps(args, 5)
    except Exception:
        return codec.dump_arguments(args, kwargs)
    if b"__main__" in data and not codec.main_is_importable():
        return codec.dump_arguments(args, kwargs)
    return data
