"""The same queue under other interfaces."""
