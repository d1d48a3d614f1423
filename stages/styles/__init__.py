"""Finds styles by their codes."""
