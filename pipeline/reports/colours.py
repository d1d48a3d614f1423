"""The colours of regions and of curves: those of Okabe and Ito, which the colour-blind tell apart."""

Colour = tuple[int, int, int]  # RGB

REGIONS: dict[str, Colour] = {"hair": (213, 94, 0), "face": (240, 228, 66), "background": (0, 114, 178)}
REJECTED: Colour = (190, 190, 190)  # what no region took
# One per curve of a chart, on a light and on a dark page; more curves than these begin again.
CURVES: tuple[tuple[Colour, Colour], ...] = (
    ((0, 114, 178), (86, 180, 233)),
    ((213, 94, 0), (230, 159, 0)),
    ((0, 128, 96), (0, 190, 142)),
    ((168, 72, 128), (218, 142, 186)),
    ((110, 96, 0), (240, 228, 66)),
    ((90, 94, 100), (176, 180, 186)),
)


def css(colour: Colour) -> str:
    """The colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
