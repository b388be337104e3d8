"""Values to bytes and back. Loaded by parents and workers alike: imports nothing of workq but ``interruption`` and, for what goes wrong, ``errors``, and
no heavy module before it is needed."""
