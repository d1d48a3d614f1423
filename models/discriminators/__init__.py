"""Discriminators: real or not, same style or not."""
