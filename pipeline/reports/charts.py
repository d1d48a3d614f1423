"""Curves as inline SVG, for pages that must open without a network; templates/style.css gives the colours."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.reports import colours

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 392, 22, 196  # edges of the plot
POINTS = 300  # most points drawn of a curve; a longer one is averaged down to this many
MARKED = 25  # a curve of at most this many points has each marked
SMOOTH = 40  # a smoothed curve averages over a SMOOTHth of its points
TICKS = 5
LETTER = 6.8  # pixels of a letter's width, on average


@dataclass(frozen=True)
class Curve:
    """A quantity of one run: its (step, value) points sorted by step, and the (step, name) where each phase begins."""

    run: str
    points: Points
    phases: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class _Axis:
    """Places of values along an axis, in pixels, and the values that are written beside it."""

    place: Callable[[float], float]
    ticks: Sequence[float]


@dataclass(frozen=True)
class Dot:
    """A named point of a `scatter`."""

    name: str
    x: float
    y: float


def scatter(title: str, dots: Sequence[Dot], *, across: str, up: str, joined: bool = False) -> Markup:
    """An SVG of named dots, `joined` by a line in their order if wanted; `across` and `up` name the axes.

    Markup("") when there are no dots.
    """
    if not dots:
        return Markup()
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    horizontal, vertical = (
        _linear(min(xs), max(xs), LEFT + 8, RIGHT - 8),
        _linear(min(ys), max(ys), BOTTOM - 8, TOP + 8),
    )
    parts = [*_grid(horizontal, vertical, across)]
    parts.append(Markup('<text x="{}" y="{}">{}</text>').format(2, TOP - 8, up))
    places = [(horizontal.place(dot.x), vertical.place(dot.y)) for dot in dots]
    if joined:
        parts.append(Markup('<g class="curve-0"><polyline points="{}"/></g>').format(_path(places)))
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for i, (dot, (x, y)) in enumerate(zip(dots, places, strict=True)):
        colour = 0 if joined else i % len(colours.CURVES)
        parts.append(Markup('<circle class="curve-{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(colour, x, y))
        left, below = _beside(dot.name, x, y, taken)
        edge = left if left > x else left + LETTER * len(dot.name)
        line = (
            '<line class="axis" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/><text x="{:.1f}" y="{:.1f}">{}</text>'
        )
        parts.append(Markup(line).format(x, y, edge, below - 4, left, below, dot.name))
    told = "; ".join(f"{dot.name}: {across} {dot.x:.4g}, {up} {dot.y:.4g}" for dot in dots)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"{title}: {told}", Markup().join(parts)
    )


def _beside(text: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Where the text of a dot begins so that it covers nothing that is `taken`, which it then joins."""
    wide, high = LETTER * len(text), 11.0
    rows = (y + 4 + turn * high for turn in (0, -1, 1, -2, 2, -3, 3, -4, 4, -5, -6))
    places = [(x0, row) for row in rows if TOP < row < BOTTOM for x0 in (x + 7, x - 7 - wide) if 0 < x0 < WIDTH - wide]

    def free(place: tuple[float, float]) -> bool:
        return all(
            place[0] > right or place[0] + wide < left or place[1] - high > below or place[1] < above
            for left, above, right, below in taken
        )

    left, below = next(filter(free, places), places[0] if places else (WIDTH - wide, y - 7))
    taken.append((left, below - high, left + wide, below))
    return left, below


def chart(title: str, curves: Sequence[Curve], *, steps: tuple[float, float], log: bool = False) -> Markup:
    """An SVG of the curves in one plot: each thin as it is, and wide where it is smoothed.

    `steps` are the first and the last step of the horizontal axis, so that charts of one page can be compared.
    `log` makes the vertical axis logarithmic if all values are positive. Markup("") when there are no points.
    """
    drawn = [
        (i % len(colours.CURVES), curve, _thinned(curve.points), _thinned(smoothed(curve.points)))
        for i, curve in enumerate(curves)
        if curve.points
    ]
    if not drawn:
        return Markup()
    ys = [y for _, _, points, _ in drawn for _, y in points]
    across = _linear(*steps, LEFT, RIGHT)
    up = _log(min(ys), max(ys), BOTTOM, TOP) if log and min(ys) > 0 else _linear(min(ys), max(ys), BOTTOM, TOP)
    label = f"{title}: " + "; ".join(_told(curve) for _, curve, _, _ in drawn)
    parts = [*_phases(curves, across), *_grid(across, up, "step")]
    for i, curve, points, smooth in drawn:
        place = [(across.place(x), up.place(y)) for x, y in points]
        lines = Markup('<polyline class="raw" points="{}"/>').format(_path(place))
        lines += Markup('<polyline class="smooth" points="{}"/>').format(
            _path((across.place(x), up.place(y)) for x, y in smooth)
        )
        if len(curve.points) <= MARKED:
            lines += Markup().join(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2"/>').format(*at) for at in place)
        parts.append(Markup('<g class="curve curve-{}">{}</g>').format(i, lines))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup().join(parts)
    )


def smoothed(points: Points) -> list[tuple[float, float]]:
    """The exponential average of the values over a SMOOTHth of the points, not drawn towards any start value."""
    keep = 1 - 1 / max(1.0, len(points) / SMOOTH)
    total, weight, result = 0.0, 0.0, []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        result.append((x, total / weight))
    return result


def short(value: float) -> str:
    """A number in few characters: 12k for 12000, 1e-05 for 0.00001."""
    if abs(value) >= 1000:
        for unit, size in (("M", 1e6), ("k", 1e3)):
            if abs(value) >= size:
                return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _path(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _told(curve: Curve) -> str:
    (first, start), (last, end) = curve.points[0], curve.points[-1]
    step, least = min(curve.points, key=lambda point: point[1])[0], min(y for _, y in curve.points)
    name = f"{curve.run} " if curve.run else ""
    return f"{name}{start:.4g} at step {first:g}, {end:.4g} at step {last:g}, least {least:.4g} at step {step:g}"


def _thinned(points: Points) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    blocks = (points[i : i + size] for i in range(0, len(points), size))
    return [(block[-1][0], math.fsum(y for _, y in block) / len(block)) for block in blocks]


def _linear(low: float, high: float, start: float, end: float) -> _Axis:
    """An axis from `low` to `high`; where these are hardly apart, as the values of a constant are, with room around."""
    largest = max(abs(low), abs(high), 1e-9)
    if high - low < largest / 1000:
        low, high = low - largest / 20, high + largest / 20
    step = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step *= next((size for size in (1, 2, 5) if (high - low) / (step * size) <= TICKS), 10)
    ticks = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return _Axis(lambda value: start + (value - low) / (high - low) * (end - start), ticks)


def _log(low: float, high: float, start: float, end: float) -> _Axis:
    """A logarithmic axis; ticks at powers of ten, where there are few of these also between them."""
    inner = _linear(math.log10(low), math.log10(high), start, end)
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    choices = (powers, [lead * power for power in powers for lead in (1, 2, 5)], _linear(low, high, start, end).ticks)
    ticks = next(
        (inside for choice in choices if len(inside := [t for t in choice if low <= t <= high]) > 2), choices[-1]
    )
    return _Axis(lambda value: inner.place(math.log10(value)), ticks)


def _grid(across: _Axis, up: _Axis, name: str) -> Iterator[Markup]:
    for tick in up.ticks:
        y = up.place(tick)
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, RIGHT, y, y)
        yield Markup('<text class="y" x="{}" y="{:.1f}">{}</text>').format(LEFT - 6, y + 4, short(tick))
    yield Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, RIGHT, BOTTOM, BOTTOM)
    for tick in across.ticks:
        if name != "step" or tick == int(tick):
            x = across.place(tick)
            yield Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                x, x, BOTTOM, BOTTOM + 4
            )
            yield Markup('<text class="x" x="{:.1f}" y="{}">{}</text>').format(x, BOTTOM + 16, short(tick))
    yield Markup('<text class="x" x="{}" y="{}">{}</text>').format((LEFT + RIGHT) / 2, HEIGHT - 4, name)


def _phases(curves: Sequence[Curve], across: _Axis) -> Iterator[Markup]:
    """Bands with names where one run is drawn; of several, a line in the run's colour where a phase begins."""
    if len(curves) > 1:
        for i, curve in enumerate(curves):
            for start, _ in curve.phases[1:]:
                x = across.place(start)
                yield Markup('<line class="phase curve-{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                    i, x, x, TOP, BOTTOM
                )
        return
    curve = curves[0]
    edges = [LEFT, *(across.place(start) for start, _ in curve.phases[1:]), RIGHT]
    for number, (_, name) in enumerate(curve.phases):
        left, right = edges[number : number + 2]
        yield Markup('<rect class="phase phase-{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
            number % 2, left, TOP, right - left, BOTTOM - TOP
        )
        if right - left > 6 * len(name):
            yield Markup('<text class="phase" x="{:.1f}" y="{}">{}</text>').format(left + 4, TOP - 6, name)
