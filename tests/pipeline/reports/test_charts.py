"""Charts: values at their places, ticks that people would choose, and nothing exaggerated."""

import re

import pytest

from pipeline.reports import charts
from pipeline.reports.charts import BOTTOM, LEFT, RIGHT, TOP, Curve, chart, short, smoothed


def places(svg: str, kind: str = "raw") -> list[list[tuple[float, float]]]:
    lines = re.findall(rf'class="{kind}" points="([^"]*)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]  # type: ignore[misc]


def ticks(svg: str, axis: str) -> list[str]:
    return re.findall(rf'<text class="{axis}"[^>]*>([^<]*)</text>', svg)


def test_points_lie_where_their_values_are() -> None:
    svg = chart("loss", [Curve("", [(0, 1.0), (50, 3.0), (100, 2.0)])], steps=(0, 100))
    assert places(svg) == [[(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, TOP), (RIGHT, (TOP + BOTTOM) / 2)]]
    assert ticks(svg, "y") == ["1", "1.5", "2", "2.5", "3"] and ticks(svg, "x")[:-1] == [
        "0",
        "20",
        "40",
        "60",
        "80",
        "100",
    ]
    assert "1 at step 0, 2 at step 100, least 1 at step 0" in svg


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    curve = Curve("", [(0, 0.001), (1, 0.1), (2, 10.0)])
    ((_, a), (_, b), (_, c)) = places(chart("loss", [curve], steps=(0, 2), log=True))[0]
    assert a - b == pytest.approx(b - c, abs=0.2) and (a, c) == (BOTTOM, TOP)
    assert ticks(chart("loss", [curve], steps=(0, 2), log=True), "y") == ["0.001", "0.01", "0.1", "1", "10"]
    near = chart("loss", [Curve("", [(0, 0.3), (1, 0.4)])], steps=(0, 1), log=True)
    assert len(ticks(near, "y")) >= 2  # no power of ten is between them
    signed = Curve("", [(0, -1.0), (1, 1.0)])
    assert chart("loss", [signed], steps=(0, 1), log=True) == chart("loss", [signed], steps=(0, 1))


def test_a_constant_is_a_level_line_also_where_averaging_rounds_it() -> None:
    line = places(chart("loss", [Curve("", [(i, 0.8131) for i in range(1000)])], steps=(0, 999)))[0]
    assert {y for _, y in line} == {(TOP + BOTTOM) / 2} and len(line) <= 300
    assert places(chart("loss", [Curve("", [(5, 0.0)])], steps=(5, 5)))  # one point, and that is zero


def test_smoothing_starts_at_the_values_and_evens_out_noise() -> None:
    points = [(i, 2.0 + (-1) ** i) for i in range(4000)]
    smooth = smoothed(points)
    assert smooth[0] == points[0] and all(abs(y - 2) < 0.02 for _, y in smooth[1000:])
    assert smoothed([(0, 1.0), (1, 5.0)]) == [(0, 1.0), (1, 5.0)]  # too few to smooth


def test_phases_are_shaded_for_one_run_and_marked_for_several() -> None:
    curve = Curve("first", [(0, 1.0), (100, 2.0)], [(0, "reconstruct"), (50, "stylize")])
    one = chart("loss", [curve], steps=(0, 100))
    assert re.findall(r'<rect class="phase phase-(\d)" x="([\d.]+)"', one) == [
        ("0", f"{LEFT:.1f}"),
        ("1", f"{(LEFT + RIGHT) / 2:.1f}"),
    ]
    assert ">reconstruct<" in one and ">stylize<" in one
    two = chart("loss", [curve, Curve("second", []), Curve("third", [(0, 3.0)])], steps=(0, 100))
    assert "<rect" not in two and two.count('<line class="phase curve-0"') == 1
    assert 'class="curve curve-0"' in two and 'class="curve curve-2"' in two  # a run keeps its colour everywhere
    assert "first 1 at step 0" in two and "third 3 at step 0" in two


def test_no_points_draw_nothing_and_names_are_escaped() -> None:
    assert chart("loss", [Curve("", [])], steps=(0, 1)) == ""
    svg = chart("<script>", [Curve('"><script>', [(0, 1.0)], [(0, "<b>")])], steps=(0, 1))
    assert "<script>" not in svg and "<b>" not in svg


def test_numbers_are_short() -> None:
    assert [short(v) for v in (0, 12, 12000, 1.25e6, 0.00001, -2500, 0.30000000000000004)] == [
        "0", "12", "12k", "1.25M", "1e-05", "-2.5k", "0.3",
    ]  # fmt: skip


def test_names_of_dots_cover_nothing() -> None:
    """Eight methods, some of them close together: no name lies on another or leaves the plot."""
    names = ("Content, unstylised", "AdaIN", "Gatys", "SANet", "PAMA", "NNST", "HyperNST (ours)", "HyperNST, refined")
    places = ((0, 84), (0.43, 15.8), (0.44, 14), (0.42, 17), (0.41, 19), (0.45, 11), (0.39, 33), (0.46, 10.8))
    svg = charts.scatter("t", [charts.Dot(n, *at) for n, at in zip(names, places, strict=True)], across="L", up="S")
    assert svg.count("<circle") == 8 and "polyline" not in svg
    boxes = []
    for name in names:
        (found,) = re.findall(rf'<text x="([\d.]+)" y="([\d.]+)">{re.escape(name)}</text>', svg)
        left, below = map(float, found)
        assert left > 0 and left + charts.LETTER * len(name) <= charts.WIDTH
        boxes.append((left, below - 11, left + charts.LETTER * len(name), below))
    for i, a in enumerate(boxes):
        assert not [b for b in boxes[i + 1 :] if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]
    assert charts.scatter("t", [], across="L", up="S") == ""
    assert charts.scatter("t", [charts.Dot("a", 1, 2)], across="L", up="S", joined=True).count("polyline") == 1
