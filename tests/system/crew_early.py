"""Notes what it sees when it is imported: a worker's preload."""

import os

SEEN = {name: os.environ.get(name) for name in ("CREW", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
