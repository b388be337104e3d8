"""The benchmark: workq beside other libraries and beside what the machine allows. Run it with ``python3 tests/bench/run.py``.

``rows`` says what is promised, ``workloads`` how it is measured, ``adapters`` and ``limits`` who takes part. ``runner`` measures each
contender in a process of its own (``case``), in turns, so that a noisy moment meets all of them; ``report`` and ``picture`` show it.
"""
