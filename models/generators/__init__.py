"""Generators: latents to images, with weight deltas."""
