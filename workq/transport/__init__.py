"""Values to bytes and back. Loaded by parents and workers alike: imports nothing of workq but ``interruption`` (and ``errors`` where
something has gone wrong), and no heavy module before it is needed."""
