"""Measures results and shows them."""
