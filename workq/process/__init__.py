"""Operating-system processes: launch, identity, ending, probing.

What may be imported here: the standard library and ``workq.errors``. ``launcher``, ``messages`` and ``ending`` are loaded by the
launcher, whose imports are the price of every first result, so these three stay with modules written in C, ``os`` and each other.
``client`` is for the parent only. ``probe`` is the one file that imports psutil, and does so on first use.
"""
