"""Fills a cache by a stage: what is stale, who computes it, what is rejected."""
