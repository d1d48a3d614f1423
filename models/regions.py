"""The facial regions, and the size of the maps that say where they lie."""

MAP_SIZE = 256  # sides of a region map; boxes of windows refer to it
CODE_SIZE = 256  # components of a style code
REGIONS = ("hair", "face", "background")  # the labels 0, 1, 2 of a region map
REGION_COUNT = len(REGIONS)
UNKNOWN = 255
