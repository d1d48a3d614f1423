"""Stylises a portrait."""
