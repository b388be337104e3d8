"""What is given from outside, read and checked: arguments, the environment, a category's surroundings, the machine's CPUs.

May import ``errors`` and nothing else of workq.
"""
