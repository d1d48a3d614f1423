"""A curve as an inline SVG image, for pages that must open without a network."""

from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN = 320, 140, 24
POINTS = 320  # most points; a longer curve is averaged down to this many


def chart(points: Sequence[tuple[float, float]]) -> str:
    """An SVG of (x, y) points, sorted by x, with the ranges of x and y as text; "" when there are no points."""
    if not points:
        return ""
    points = _thinned(points)
    left, right = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = (right - left) or 1.0, (high - low) or 1.0
    line = " ".join(
        f"{MARGIN + (x - left) / across * (WIDTH - 2 * MARGIN):.1f},"
        f"{HEIGHT - MARGIN - (y - low) / up * (HEIGHT - 2 * MARGIN):.1f}"
        for x, y in points
    )
    style = 'font-size="10" fill="#777"'
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}"><polyline points="{line}" fill="none" stroke="#276"/>'
        f'<text x="2" y="12" {style}>{high:.4g}</text><text x="2" y="{HEIGHT - 12}" {style}>{low:.4g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 2}" {style}>{left:g}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 2}" text-anchor="end" {style}>{right:g}</text></svg>'
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    blocks = (points[i : i + size] for i in range(0, len(points), size))
    return [(block[-1][0], sum(y for _, y in block) / len(block)) for block in blocks]
