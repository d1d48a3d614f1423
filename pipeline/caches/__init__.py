"""HDF5 caches: what a row is, and how rows are read and written."""
