"""Semantic directions in W."""
