"""The facial regions, and the size of the maps that say where they lie."""

REGIONS = ("hair", "face", "background")  # the labels 0, 1, 2 of a region map
UNKNOWN = 255
