"""Runs a stage to fill a cache: finds what is stale, computes it here or on Ray, and records rejects."""
