"""Published weights: listed, fetched, opened safely, kept as safetensors. `weights.tensors(name)` is the way in."""

from pipeline.weights.registry import REGISTRY
from pipeline.weights.store import (
    SHIPPED,
    as_name,
    cached,
    find,
    folder,
    kind,
    local,
    metadata,
    names,
    needed,
    no_fetching,
    path,
    sha256,
    table,
    tensors,
    way_to,
)

__all__ = [
    "REGISTRY",
    "SHIPPED",
    "as_name",
    "cached",
    "find",
    "folder",
    "kind",
    "local",
    "metadata",
    "names",
    "needed",
    "no_fetching",
    "path",
    "sha256",
    "table",
    "tensors",
    "way_to",
]
