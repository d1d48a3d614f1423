"""Networks and losses: tensors in, tensors out. Nothing here knows of files, caches or commands."""
