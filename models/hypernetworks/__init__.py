"""Hypernetworks: image, style codes and region map to weight deltas."""
