"""Faces found and aligned."""
