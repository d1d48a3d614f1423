"""How work runs: profiles, caches, resuming, shards, weights, training loops. No network and no stage is known here."""

import os

__version__ = "0.1.0"
SCHEMA = 1  # version of the cache files; a row with another schema is stale

# The most pixels that OpenCV decodes; it reads this when it is loaded. `sources.decode` decodes the user's files.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "40000000")
