"""Encoders: images to W+ latents or to style codes."""
