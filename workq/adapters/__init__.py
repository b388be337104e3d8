"""The same queue under other interfaces. On top of everything but the command line; nothing below imports it."""
