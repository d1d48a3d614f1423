"""How work runs: profiles, caches, resuming, shards, weights, training loops. No network and no stage is known here."""

import functools
import os

__version__ = "0.1.0"
SCHEMA = 1  # version of the cache files; a row with another schema is stale

# The most pixels that OpenCV decodes; it reads this when it is loaded. `sources.decode` decodes the user's files.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "40000000")

RECORDED = (
    "torch",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
)  # their versions are kept with what they computed


@functools.cache
def libraries() -> dict[str, str]:
    """Name -> version of each of RECORDED that is installed; none of them is imported."""
    import importlib.metadata  # here, as few commands need it

    found = {}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
