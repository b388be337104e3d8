"""Values to bytes and back. Loaded by parents and workers alike: imports nothing of workq but ``config`` and ``errors``, and
no heavy module before it is needed."""
