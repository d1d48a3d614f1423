"""Chains of whole stages."""
