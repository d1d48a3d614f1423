"""Webdataset shards: writing, indexing and reading them."""
