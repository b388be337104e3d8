"""The methods of a work queue, by what they are for; `workq.manager.WorkMgr` is all of them together.

A part checks what it is given, and has other rooms do the work. No part overrides what another has.
"""
