"""What a unit writes belongs to that unit, in order, bounded, whatever the unit does to the streams."""

from __future__ import annotations

import pytest

from tests.worker.stage import chunks, told


def test_prints_of_a_unit_are_its_chunk() -> None:
    assert chunks("unit(lambda: print('hello', 1), look=False)") == [(1, "hello 1\n")]


def test_a_silent_unit_has_no_chunks() -> None:
    assert chunks("unit(lambda: None)") == []


def test_stdout_and_stderr_keep_their_order() -> None:
    code = """
    def work():
        print("a")
        print("b", file=sys.stderr)
        print("c")
        print("d", file=sys.stderr)
    unit(work, look=False)
    """
    assert chunks(code) == [(1, "a\n"), (2, "b\n"), (1, "c\n"), (2, "d\n")]


def test_bytes_of_c_code_and_subprocesses_are_caught() -> None:
    code = """
    import subprocess
    def work():
        os.write(1, b"one\\n")
        subprocess.run(["sh", "-c", "echo two; echo three >&2"], check=True)
    unit(work)
    """
    assert chunks(code) == [(1, "one\ntwo\n"), (2, "three\n")]


def test_a_flush_puts_a_print_before_what_a_subprocess_writes_next() -> None:
    code = """
    def work():
        print("before", flush=True)
        os.write(1, b"between\\n")
        print("after")
    unit(work, look=False)
    """
    assert chunks(code) == [(1, "before\nbetween\nafter\n")]


def test_a_flush_keeps_the_order_of_both_streams() -> None:
    code = """
    def work():
        print("a")
        print("b", file=sys.stderr)
        print("c", flush=True)
        print("d", file=sys.stderr)
    unit(work, look=False)
    """
    assert chunks(code) == [(1, "a\n"), (2, "b\n"), (1, "c\n"), (2, "d\n")]


def test_each_unit_has_its_own_output() -> None:
    code = """
    for n in range(5):
        unit(lambda: (print(n), os.write(2, b"%d" % n)))
    """
    assert told(code) == [[[1, f"{n}\n"], [2, f"{n}"]] for n in range(5)]


def test_what_is_beyond_the_limit_is_cut_with_a_line_that_says_so() -> None:
    ((number, text),) = chunks("unit(lambda: [print('x' * 99) for _ in range(20)], look=False)")
    assert number == 1
    assert text.startswith("x" * 99 + "\n")
    told_bytes = 1000 + len("[workq: output cut, 1000 bytes dropped]\n")
    assert len(text) == told_bytes
    assert text.endswith("[workq: output cut, 1000 bytes dropped]\n")


def test_the_limit_holds_for_descriptors_too_and_ends_with_the_unit() -> None:
    first, second = told("unit(lambda: os.write(2, b'y' * 5000)); unit(lambda: print('next'))")
    assert first == [[2, "y" * 1000], [1, "\n[workq: output cut, 4000 bytes dropped]\n"]]
    assert second == [[1, "next\n"]]


def test_one_huge_print_is_cut() -> None:
    assert sum(len(text) for _, text in chunks("unit(lambda: print('z' * 10_000_000), look=False)")) < 1100


def test_flush_hands_over_early_and_counts_for_the_limit() -> None:
    code = """
    print("a" * 600)
    tell(output.flush())
    print("b" * 600)
    tell(output.take(True))
    """
    early, rest = told(code)
    assert early == [[1, "a" * 600 + "\n"]]
    assert rest[0][1].startswith("b" * 399 + "\n[workq: output cut, 202 bytes dropped]")


def test_flush_keeps_half_a_character_for_later() -> None:
    code = """
    os.write(1, "é".encode()[:1])
    tell(output.flush())
    os.write(1, "é".encode()[1:])
    tell(output.take(True))
    """
    assert told(code) == [[], [[1, "é"]]]


def test_binary_garbage_is_told_as_escapes() -> None:
    assert chunks(r"unit(lambda: os.write(1, b'\xff\x00\xfe ok'))") == [(1, "\\xff\x00\\xfe ok")]


def test_lone_surrogates_and_subclasses_of_str_are_written() -> None:
    code = """
    class Text(str):
        def __str__(self): return "wrong"
    def work():
        print("\\udc80", file=sys.stderr)
        sys.stdout.write(Text("right"))
    unit(work, look=False)
    """
    assert chunks(code) == [(2, "\\udc80\n"), (1, "right")]


def test_the_byte_stream_is_in_order_with_the_text() -> None:
    code = """
    def work():
        print("text")
        sys.stdout.buffer.write(b"bytes\\n")
        sys.stdout.buffer.flush()
        print("text again")
    unit(work, look=False)
    """
    assert chunks(code) == [(1, "text\nbytes\ntext again\n")]


@pytest.mark.parametrize(
    "abuse",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout.detach(); sys.stderr.detach()",
        "sys.stdout = sys.stderr = None",
        "del sys.stdout, sys.stderr",
        "import io; sys.stdout = io.StringIO(); sys.stderr = io.StringIO()",
        "import io; io.TextIOWrapper(sys.stdout.buffer).close()",
        "sys.stdout.reconfigure(line_buffering=True)",
        "sys.stdout = type('Bad', (), {'flush': lambda self: sys.exit(3)})()",
        "os.close(1); os.close(2)",
        "os.dup2(os.open('/dev/null', os.O_WRONLY), 1); os.dup2(1, 2)",
        "os.set_blocking(1, False); os.set_blocking(2, False)",
    ],
)
def test_the_next_unit_writes_whatever_this_one_did_to_the_streams(abuse: str) -> None:
    code = f"""
    def abuse():
        exec({abuse!r})
    unit(abuse)
    unit(lambda: (print("out"), print("err", file=sys.stderr), os.write(1, b"low")))
    """
    second = told(code)[1]
    assert sorted((number, text) for number, text in second) == [(1, "lowout\n"), (2, "err\n")]


def test_text_left_in_a_units_own_stream_is_the_units() -> None:
    code = """
    def work():
        sys.stdout = open(1, "w", closefd=False)
        print("buffered")
    unit(work)
    """
    assert chunks(code) == [(1, "buffered\n")]


def test_redirect_stdout_works_as_ever() -> None:
    code = """
    import contextlib, io
    def work():
        kept = io.StringIO()
        with contextlib.redirect_stdout(kept):
            print("away")
        print(kept.getvalue() + "here")
    unit(work, look=False)
    """
    assert chunks(code) == [(1, "away\nhere\n")]


def test_a_child_that_a_unit_forks_writes_once_and_loses_nothing() -> None:
    code = """
    def work():
        print("parent")
        pid = os.fork()
        if pid == 0:
            print("child")
            print("child's error", file=sys.stderr)
            os._exit(0)
        os.waitpid(pid, 0)
        print("parent again")
    unit(work)
    """
    found = chunks(code)
    assert sorted("".join(text for number, text in found if number == 1).splitlines()) == ["child", "parent", "parent again"]
    assert [text for number, text in found if number == 2] == ["child's error\n"]


def test_output_of_threads_is_not_lost() -> None:
    code = """
    import threading
    output.room = 10**9
    def talk(name):
        for n in range(2000):
            sys.stdout.write(f"{name} {n}\\n")
            if n % 500 == 0:
                sys.stdout.flush()
    def work():
        threads = [threading.Thread(target=talk, args=(name,)) for name in "ab"]
        [thread.start() for thread in threads]
        drained = []
        while any(thread.is_alive() for thread in threads):
            drained += output.flush()
        tell(drained)
    unit(work)
    """
    early, rest = told(code)
    lines = "".join(text for _, text in early + rest).splitlines()
    assert sorted(lines) == sorted(f"{name} {n}" for name in "ab" for n in range(2000))


def test_waiting_tells_whether_there_are_bytes() -> None:
    code = """
    tell(output.waiting())
    os.write(2, b"x")
    tell(output.waiting())
    output.take(True)
    tell(output.waiting())
    """
    assert told(code) == [False, True, False]


def test_bytes_that_were_drained_meanwhile_are_told_at_the_units_end() -> None:
    code = """
    def work():
        output.room = 10**6
        os.write(1, b"early " * 5000)
        assert output.drain()
        os.write(1, b"late")
    unit(work)
    """
    assert chunks(code) == [(1, "early " * 5000 + "late")]


def test_drained_bytes_show_in_pending_so_that_the_units_end_looks() -> None:
    code = """
    output.room = 10**6
    os.write(1, b"x" * 30_000)
    output.drain()
    tell(bool(output.pending))
    tell(output.take(False))
    """
    assert told(code) == [True, [[1, "x" * 30_000]]]


def test_a_pipe_is_drained_only_when_it_is_well_filled_and_never_to_its_end() -> None:
    """What is left is what the parent finds there when the worker is killed."""
    code = """
    import fcntl
    size = fcntl.fcntl(readers[1], fcntl.F_GETPIPE_SZ)
    os.write(2, b"x" * (size // 4 - 1))
    tell(output.drain())
    os.write(2, b"last words")
    tell(output.drain() + size // 16 - size // 4)
    os.set_blocking(readers[1], False)
    left = os.read(readers[1], size)
    tell([len(left) - size // 16, left[-11:].decode()])
    """
    assert told(code) == [0, 9, [0, "xlast words"]]


def test_discarded_output_is_gone() -> None:
    assert told("output.discard = True; unit(lambda: (print('x'), os.write(2, b'y'))); output.discard = False; unit(int)") == [[], []]


def test_a_unit_that_closes_every_descriptor_breaks_nothing() -> None:
    code = """
    def abuse():
        for fd in range(100):
            if fd != report:
                try: os.close(fd)
                except OSError: pass
    unit(abuse)
    tell(output.waiting())
    unit(lambda: print("still"), look=False)
    """
    assert told(code) == [[], False, [[1, "still\n"]]]


def test_a_file_that_got_a_pipes_number_is_not_read() -> None:
    code = """
    def abuse():
        os.close(readers[0])
        global stranger
        stranger = os.open(__file__, os.O_RDONLY)
        assert stranger == readers[0]
        os.write(2, b"x")
    unit(abuse)
    tell(os.lseek(stranger, 0, os.SEEK_CUR))
    """
    assert told(code) == [[[2, "x"]], 0]


def test_the_streams_look_like_streams() -> None:
    code = """
    import io
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        tell([stream.fileno(), stream.isatty(), stream.encoding, stream.writable(), stream.closed, stream.buffer.fileno()])
        tell([isinstance(stream, io.TextIOBase), stream.writelines(["a", "b"]), stream.write("cd")])
    try: print(1, file=sys.stdout) or sys.stdout.write(5)
    except TypeError: tell("TypeError")
    """
    first, second = ([[n, False, "utf-8", True, False, n], [True, None, 2]] for n in (1, 2))
    assert told(code) == [*first, *second, "TypeError"]


def test_a_print_costs_less_than_a_stream_for_each_unit() -> None:
    """Both are measured in one process, in turn, so that a slow machine fails no test."""
    code = """
    import io, time, timeit
    output.room = 10**12
    def ours():
        print("hello", 1)
        output.take(False)
    def a_stream_for_each_unit():
        print("hello", 1, file=io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True))
    def cost(function):
        return timeit.timeit(function, timer=time.process_time, number=1000)
    ratios = [cost(ours) / cost(a_stream_for_each_unit) for _ in range(15)]
    tell(min(ratios))
    """
    (ratio,) = told(code)
    assert ratio < 1.2
