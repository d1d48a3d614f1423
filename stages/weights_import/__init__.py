"""Takes a published file in: what it is, whether it fits, its tensors."""
