"""The hypernetwork's training."""
