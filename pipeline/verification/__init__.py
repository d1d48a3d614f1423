"""Finds damage in files of rows, over several processes, and remembers which files were found sound."""
