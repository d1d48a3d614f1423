"""The facial regions, and the size of the maps that say where they lie."""

MAP_SIZE = 256  # px, side of a region map; boxes of windows are given in its pixels
CODE_SIZE = 256  # components of a style code
REGIONS = ("hair", "face", "background")  # the labels 0, 1, 2 of a region map
REGION_COUNT = len(REGIONS)
UNKNOWN = 255  # the label of pixels whose region is not known
