"""What people see: snapshots that print and are data, tables, bars, completion. It shows what it is given, and changes nothing.

May import ``core``, ``process`` and what lies below; rows of the controller are known to it by their names only.
"""
