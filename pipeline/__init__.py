"""How work runs: profiles, caches, resuming, shards, readers. Nothing here computes on pictures or needs a GPU."""

import os

__version__ = "0.1.0"
SCHEMA = 1  # of the cache files; a row written under another schema is stale

# Pixels that OpenCV decodes at most; it takes the limit when it is loaded. What users bring goes through `untrusted`.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "40000000")
