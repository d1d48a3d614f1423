"""Semantic directions: generated faces are scored, and boundaries between the extremes found in W."""
