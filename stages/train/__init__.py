"""Trains the hypernetwork."""
