"""Published weights: listed, fetched, opened safely, kept as safetensors. `weights.tensors(name)` is the way in."""

from pipeline.weights.registry import REGISTRY
from pipeline.weights.store import (
    SHIPPED,
    as_name,
    cached,
    facts,
    find,
    folder,
    how_to_get,
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
)

__all__ = [
    "REGISTRY",
    "SHIPPED",
    "as_name",
    "cached",
    "facts",
    "find",
    "folder",
    "how_to_get",
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
]
