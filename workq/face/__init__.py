"""A work queue as its user has it: the methods, by what they are for, and what stands behind them beside the controller.

`workq.manager.WorkMgr` is ``queueing``, ``waiting``, ``ending`` and ``seeing`` together. These check what they are given, and have other
rooms do the work; none overrides what another has. May import the controller and what lies below; the manager only when it is called.
"""
