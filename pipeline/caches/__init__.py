"""HDF5 caches: what a row is, how it is read and how it is written."""
