"""Webdataset shards: written, indexed and read back."""
