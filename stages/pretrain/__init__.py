"""Trains the networks that the hypernetwork stands on."""
