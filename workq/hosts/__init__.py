"""Where units run if not in workers of this process's own: in whoever waits (``inline``), or in the workers of the parent (``nested``).

Both offer what a ``Controller`` offers as ``Hosting``; a `WorkMgr` imports the one that it needs when it is made.
"""
