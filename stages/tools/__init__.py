"""Looks after caches, weights and the machine."""
