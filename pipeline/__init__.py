"""How work runs: profiles, caches, resuming, shards, readers. Nothing here computes on pictures or needs a GPU."""

__version__ = "0.1.0"
SCHEMA = 1  # of the cache files; a row written under another schema is stale
