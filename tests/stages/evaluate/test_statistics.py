"""Intervals of means over pairs, and of paired differences."""

import numpy as np
import pytest

from stages.evaluate import statistics


def test_intervals_cover_the_mean_and_pairing_narrows_differences() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        low, high = statistics.intervals(rng.normal(3, 1, (50, 1)), seed)
        covered += int(low[0] <= 3 <= high[0])
    assert 85 <= covered <= 100
    hard = rng.normal(0, 10, 200)  # how hard a pair is, for both methods
    pairs = [
        {"method": name, "content": i, "style": "s", "x": float(value)}
        for name, shift in (("a", 0.0), ("b", 0.5))
        for i, value in enumerate(hard + shift + rng.normal(0, 0.1, 200))
    ]
    found = statistics.describe(pairs, ["a", "b"], ["x"], 0)
    gap, back = found["differences"]["b"]["a"]["x"], found["differences"]["a"]["b"]["x"]
    assert gap["mean"] == pytest.approx(0.5, abs=0.03) and gap["mean"] == pytest.approx(-back["mean"])
    assert gap["interval"][0] > 0.45 and gap["interval"][1] - gap["interval"][0] < 0.1
    low, high = found["intervals"]["a"]["x"]
    assert high - low > 1 and low <= hard.mean() <= high
    assert found == statistics.describe(pairs, ["a", "b"], ["x"], 0)
