"""The versions of the libraries whose results a cache holds: they are recorded with it, and never compared."""

import functools
import importlib.metadata

RECORDED = ("torch", "numpy", "opencv-python-headless", "opencv-python", "pillow")


@functools.cache
def libraries() -> dict[str, str]:
    """Name -> version of each of RECORDED that is installed; none of them is imported."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
